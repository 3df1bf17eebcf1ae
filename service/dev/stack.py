"""`plumbline up`: brings the embedded stack up in order, proves it, keeps it alive, and takes it down cleanly.

`run_up`, `run_down` and `run_reset` answer exit codes: 0 fine, 1 the self-check failed, 2 it cannot run here
(one sentence with the cure on stderr). `running_stack` is the same for tests.
Test: `tests/integration/test_stack.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from service.dev.bringup import BringUp
from service.dev.children import StackError, last_line, spawn, stop
from service.dev.postgres import EmbeddedPostgres
from service.dev.roster import BrokerKind, Profile, UpOptions
from service.dev.selfcheck import SelfCheckError
from service.dev.state import ROOT, Lock, forget, open_home, read_stack, wipe
from service.dev.supervisor import Supervisor

__all__ = ["UpOptions", "run_down", "run_reset", "run_up", "running_stack"]


def run_up(options: UpOptions) -> int:
    """Run the stack until a signal (or, with `detach`, until it is ready). Answers the exit code."""
    try:
        options = replace(options, home=open_home(options.home))
        return _detach(options) if options.detach else _run(options)
    except SelfCheckError as error:
        return _complain(str(error), code=1)
    except StackError as error:
        return _complain(str(error), code=2)
    except KeyboardInterrupt:
        return 0


def run_down(home: Path) -> int:
    """Stop the stack of `home` and wait until its last process is gone."""
    home = home.absolute()
    lock = Lock(home)
    pid = lock.holder()
    if pid is None:
        print(f"no stack runs from {home}")
        return 0
    print(f"stopping the stack of {home} (pid {pid}) …", flush=True)
    # Killed, it takes its children with it: each was told to die with its parent.
    if not (_end(lock, pid, signal.SIGTERM, timeout_s=60) or _end(lock, pid, signal.SIGKILL, timeout_s=10)):
        return _complain(f"the stack (pid {pid}) does not end: end it by hand", code=2)
    return 0


def run_reset(home: Path) -> int:
    """Stop the stack of `home` and delete everything it made: data, logs, keys."""
    home = home.absolute()
    code = run_down(home)
    if code:
        return code
    try:
        EmbeddedPostgres(home, 0).wipe()
        wipe(home)
    except OSError as error:
        return _complain(f"{error.filename} cannot be deleted ({error.strerror}): remove it by hand", code=2)
    print(f"{home} holds nothing of the stack any more")
    return 0


@contextmanager
def running_stack(
    home: Path, http_port: int, *, api: int = 1, workers: int = 1, kafka: BrokerKind = "auto", profile: Profile = "default",
    env: Mapping[str, str] | None = None, timeout_s: float = 120.0, ops_port: int = 0, echo: bool = False,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A whole stack in a process tree of its own, for tests and load runs: yields the parsed `stack.json` once it is ready.

    `env` reaches every Python process of it and wins over the stack's own settings.
    Raises `StackError` with what `up` printed last when it does not get ready.
    """
    home = open_home(home)
    options = UpOptions(
        home=home, http_port=http_port, ops_port=ops_port, api=api, workers=workers, kafka=kafka, profile=profile, env=dict(env or {})
    )  # fmt: skip
    log, begin = _log(home)
    process = spawn(_command(options), log=log, env=_importable(), death_signal=signal.SIGTERM)
    try:
        _follow(process, log, begin, echo=echo, timeout_s=timeout_s)
        yield read_stack(home)
    finally:
        stop(process, timeout_s=60)


def _run(options: UpOptions) -> int:
    lock = Lock(options.home)
    predecessor = lock.take()
    if predecessor is not None:
        _say(f"  the last stack here (pid {predecessor}) was killed; its lock is taken over")
    try:
        with Supervisor(_say) as supervisor:
            bring_up = BringUp(options, supervisor)
            bring_up.run()
            supervisor.on_change = bring_up.publish
            supervisor.watch(bring_up.reloader() if options.reload else None)
    finally:
        forget(options.home)
        lock.release()
    return 0


def _detach(options: UpOptions) -> int:
    log, begin = _log(options.home)
    with log.open("ab") as output:
        process = subprocess.Popen(
            _command(options), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=_importable(), start_new_session=True
        )
    try:
        _follow(process, log, begin, echo=True, timeout_s=600)
    except (StackError, KeyboardInterrupt):
        stop(process, timeout_s=60)
        return process.returncode or 2
    _say(f"stop it with `plumbline down`; its log is {log}")
    return 0


def _log(home: Path) -> tuple[Path, int]:
    log = home / "logs" / "up.log"
    return log, log.stat().st_size if log.exists() else 0


def _follow(process: subprocess.Popen[bytes], log: Path, position: int, *, echo: bool, timeout_s: float) -> None:
    """Read `log` from `position` until the ready line. Raises `StackError` when the process ends or time runs out."""
    deadline = time.monotonic() + timeout_s
    with log.open() as file:
        file.seek(position)
        while True:
            ended = process.poll() is not None  # asked before reading: what it wrote last is still read
            line = file.readline()
            if line and echo:
                print(line, end="", flush=True)
            if line.startswith("ready "):
                return
            if not line and ended:
                raise StackError(f"the stack ended (exit {process.returncode}) before it was ready: {last_line(log)}")
            if time.monotonic() > deadline:
                raise StackError(f"the stack was not ready within {timeout_s:g} s: {last_line(log)}; see {log}")
            if not line:
                time.sleep(0.02)


def _command(options: UpOptions) -> list[str]:
    asked = asdict(replace(options, detach=False)) | {"home": str(options.home)}
    return [sys.executable, "-m", "service.dev.stack", json.dumps(asked)]


def _importable() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}


def _end(lock: Lock, pid: int, how: signal.Signals, *, timeout_s: float) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, how)
    deadline = time.monotonic() + timeout_s
    while lock.holder() is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    return lock.holder() is None


def _say(text: str) -> None:
    print(text, flush=True)


def _complain(sentence: str, *, code: int) -> int:
    print(f"plumbline: {sentence}", file=sys.stderr, flush=True)
    return code


def main() -> int:
    """`python -m service.dev.stack <options as JSON>`: the process behind `--detach` and `running_stack`."""
    asked = json.loads(sys.argv[1])
    return run_up(UpOptions(**{**asked, "home": Path(asked["home"])}))


if __name__ == "__main__":
    sys.exit(main())
