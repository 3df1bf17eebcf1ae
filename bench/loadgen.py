"""The load generator: compiles `loadgen.c` once, packs requests into frames, runs it and reads its numbers.

It is C because it must cost less than the servers it measures; the report shows its own cost beside theirs.
When no C compiler is there the benchmark ends with a sentence saying how to get one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.errors import BenchError

_SOURCE: Final = Path(__file__).with_name("loadgen.c")
_KEY: Final = b"{{16-byte-key-}}"
KEY_FIELD: Final = _KEY.decode()


@dataclass(frozen=True, slots=True)
class Load:
    """What one run saw. `cpu_us` is the generator's own."""

    good: int
    bad: int
    broken: int
    seconds: float
    p50_us: int
    p99_us: int
    cpu_us: int


def compile_generator() -> Path:
    """The program, built once per version of its source. Raises `BenchError` without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchError("no C compiler found: install one (Debian: apt-get install gcc libc6-dev)")
    key = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    program = Path(tempfile.gettempdir()) / f"plumbline-loadgen-{os.geteuid()}-{key}"
    if not program.exists():
        partial = program.with_suffix(f".{os.getpid()}")
        done = subprocess.run([compiler, "-O2", "-o", str(partial), str(_SOURCE)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{_SOURCE.name} did not compile: {done.stderr[:400]}")
        partial.rename(program)
    return program


def request(method: str, path: str, *, token: str = "", body: bytes = b"", headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """One HTTP/1.1 request as bytes; `KEY_FIELD` in a header value is replaced by a fresh key at every send."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1"]
    if token:
        lines.append(f"authorization: Bearer {token}")
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def write_frames(path: Path, requests: Sequence[bytes]) -> Path:
    """Pack requests for the generator."""
    with path.open("wb") as file:
        for data in requests:
            file.write(struct.pack("<Ii", len(data), data.find(_KEY)) + data)
    return path


def run_load(program: Path, *, port: int, connections: int, seconds: float, frames: Path, status: int, core: int | None, rate: float = 0) -> Load:
    """Drive one server for `seconds`: closed, or open at a `rate` a second, its times counted from when a request was due.

    Raises `BenchError` when an answer was not the expected one.
    """
    command = [str(program), str(port), str(connections), f"{seconds:.3f}", str(frames), str(status), os.urandom(5).hex()]
    command += [f"{rate:g}"] * (rate > 0)
    # Pinned before exec by the parent's own affinity: a preexec function would cost a fork of this process' memory.
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    finally:
        os.sched_setaffinity(0, before)
    if done.returncode:
        raise BenchError(f"the load generator failed: {done.stderr.strip()[:400]}")
    load = Load(**json.loads(done.stdout))
    if load.bad or load.broken or not load.good:
        raise BenchError(f"{load.bad} wrong answers, {load.broken} broken connections, {load.good} good: {done.stderr.strip()[:900]}")
    return load
