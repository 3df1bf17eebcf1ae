"""What a benchmark runs against: its own PostgreSQL and Redis, the floors (twice), and one API process, pinned.

The servers under test have one core to themselves; PostgreSQL, Redis and the load generator share the other.
State lives in a temporary folder; leaving the context stops every process.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

from bench.cpu import family
from bench.errors import BenchError
from service.dev.children import last_line, spawn, stop
from service.dev.postgres import EmbeddedPostgres
from service.dev.redis import EmbeddedRedis
from service.dev.state import ROOT

_FIRST_PORT: Final = 14_000
_LAST_PORT: Final = 17_000
_SPAN: Final = 120
_START_S: Final = 60.0


@dataclass(slots=True)
class Rig:
    """The running servers. Ports: base = API; +1, +2 floors; +3 trace sink; +100 … as in the embedded stack."""

    home: Path
    base_port: int
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    environment: dict[str, str]
    server_core: int | None
    other_core: int | None
    processes: dict[str, Popen[bytes]] = field(default_factory=dict)

    def pid(self, name: str) -> int:
        """Process id of a process started here."""
        return self.processes[name].pid


def free_base_port(span: int = _SPAN) -> int:
    """A base port below 32768 whose derived ports are free."""
    offsets = (0, 1, 2, 3, *range(100, 110))
    for base in range(_FIRST_PORT + (os.getpid() % 20) * span, _LAST_PORT, span):
        if all(_free(base + offset) and _free(base + 1000 + offset) for offset in offsets):
            return base
    raise BenchError(f"no free range of ports between {_FIRST_PORT} and {_LAST_PORT}: what is listening there?")


def cores() -> tuple[int | None, int | None]:
    """(server core, core of everything else); None, None on a machine with one core."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[-1], allowed[0]) if len(allowed) > 1 else (None, None)


@contextmanager
def running_rig() -> Iterator[Rig]:
    """PostgreSQL and Redis migrated and seeded, issuer, sink, floors and API, all ready."""
    server_core, other_core = cores()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plumbline-bench-", ignore_cleanup_errors=True)))
        base = free_base_port()
        postgres, redis = EmbeddedPostgres(home, base + 100), EmbeddedRedis(home, base + 101)
        stack.callback(postgres.wipe)
        for server in (postgres, redis):
            stack.callback(server.stop)
            server.launch()
        for server in (postgres, redis):
            server.wait_ready()
        rig = Rig(home, base, postgres, redis, _environment(home, base, postgres, redis), server_core, other_core)
        stack.callback(_stop_all, rig)
        _prepare(rig)
        _start_measured(rig)
        pin_others(rig)
        yield rig


def pin_others(rig: Rig, *more: int) -> None:
    """Keep PostgreSQL, Redis, the helpers and `more` processes off the server's core; new backends inherit it."""
    if rig.other_core is None:
        return
    helpers = [process.pid for name, process in rig.processes.items() if name in {"issuer", "sink"}]
    pids = [*family(rig.postgres.running().pid), rig.redis.running().pid, *helpers, *more]
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {rig.other_core})


def start(
    rig: Rig, name: str, *command: str, env: Mapping[str, str] | None = None, core: int | None = None, python: Path = Path(sys.executable)
) -> Popen[bytes]:
    """Start a Python process of this repository (`python -m command…`), pinned to `core`."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        process = spawn([python, "-m", *command], log=rig.home / "logs" / f"{name}.log", env={**rig.environment, **(env or {})})
    finally:
        os.sched_setaffinity(0, before)
    rig.processes[name] = process
    return process


def await_port(rig: Rig, name: str, port: int) -> None:
    """Wait until `name` listens. Raises `BenchError` when it ends first."""
    deadline = time.monotonic() + _START_S
    while _free(port):
        if rig.processes[name].poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"{name} did not start: {last_line(rig.home / 'logs' / f'{name}.log')}")
        time.sleep(0.02)


def await_ready(rig: Rig, name: str, ops_port: int) -> None:
    """Wait until `name` says it is ready on its health port. Raises `BenchError` when it ends first."""
    await_port(rig, name, ops_port)
    deadline = time.monotonic() + _START_S
    while not _says_ready(ops_port):
        if rig.processes[name].poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"{name} did not get ready: {last_line(rig.home / 'logs' / f'{name}.log')}")
        time.sleep(0.02)


def run_tool(rig: Rig, name: str, *words: str) -> None:
    """Run `plumbline words…` to its end. Raises `BenchError` when it fails."""
    process = start(rig, name, "service", *words)
    if process.wait(120):
        raise BenchError(f"`plumbline {' '.join(words)}` failed: {last_line(rig.home / 'logs' / f'{name}.log')}")
    del rig.processes[name]


def run_apart(rig: Rig, module: str, *words: object, timeout_s: float = 300) -> Any:
    """Run a measuring module in a process of its own on the server's core; answers the JSON of its last line."""
    pin = ["taskset", "-c", str(rig.server_core)] if rig.server_core is not None else []
    command = [*pin, sys.executable, "-m", module, *map(str, words)]
    done = subprocess.run(command, env=rig.environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise BenchError(f"{module} failed: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _environment(home: Path, base: int, postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> dict[str, str]:
    issuer = f"http://127.0.0.1:{base + 103}"
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("APP_")},
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "0",  # two runs of one arm differ in nothing
        "PLUMBLINE_HOME": str(home),
        "HTTP_PORT": str(base),
        "OPS_PORT": str(base + 1000),
        "DATABASE_URL": postgres.url,
        "REDIS_URL": redis.url,
        "APP_DB_SSL": "disable",
        "APP_AUTH_ISSUER": issuer,
        "APP_AUTH_JWKS_URL": f"{issuer}/.well-known/jwks.json",
        "APP_PAYMENTS_URL": f"http://127.0.0.1:{base + 104}",
        # Everything on: buckets are asked (with room), spans are exported, lines are written as JSON.
        "APP_PROFILE": "load",
        "APP_TELEMETRY_OTLP_URL": f"http://127.0.0.1:{base + 3}/v1/traces",
        "APP_TELEMETRY_LOG_FORMAT": "json",
        "APP_ORDERS_BACKLOG_CAP": "100000000",
    }


def _prepare(rig: Rig) -> None:
    start(rig, "issuer", "service", "issuer", "--port", str(rig.base_port + 103))
    start(rig, "sink", "bench.sink", str(rig.base_port + 3))
    run_tool(rig, "migrate", "migrate")
    run_tool(rig, "seed", "seed")
    await_port(rig, "issuer", rig.base_port + 103)
    await_port(rig, "sink", rig.base_port + 3)


def _start_measured(rig: Rig) -> None:
    for name, offset in (("floors", 1), ("floors-again", 2)):
        start(rig, name, "bench.floors", env={"HTTP_PORT": str(rig.base_port + offset)}, core=rig.server_core)
    start(rig, "api", "service", "serve", core=rig.server_core)
    for name, offset in (("floors", 1), ("floors-again", 2)):
        await_port(rig, name, rig.base_port + offset)
    await_ready(rig, "api", rig.base_port + 1000)


def _stop_all(rig: Rig) -> None:
    for process in reversed(rig.processes.values()):
        stop(process, timeout_s=10)


def _says_ready(ops_port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", ops_port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
