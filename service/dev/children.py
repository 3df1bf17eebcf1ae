"""Child processes of the embedded stack: started so that they die with their parent, stopped within a bound.

A parent that is killed outright leaves nothing behind, because the kernel signals each child
(`PR_SET_PDEATHSIG`, Linux). That signal belongs to the *thread* that started the child: start children
from a thread that lives as long as they shall. When this fails, orphans keep the ports
(`tests/integration/test_embedded_servers.py`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

_PR_SET_PDEATHSIG = 1
# Loaded here, not in the child: between fork and exec another thread may hold the loader's lock.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_TELLING = ("FATAL", "ERROR", "Error", "rror:", "plumbline:")


class StackError(Exception):
    """The embedded stack cannot run here: one sentence with the cure. The command line answers it with exit 2."""


class Account(NamedTuple):
    """An unprivileged user and group a child drops to."""

    uid: int
    gid: int


class Server:
    """One embedded server process on 127.0.0.1; subclasses say how it is launched and what its answer is."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home.absolute(), port
        self.log = self.home / "logs" / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """None when it does not run."""
        return self.process.pid if self.process and self.process.poll() is None else None

    def start(self) -> None:
        """Launch and wait until a client can use it. Raises `StackError` with the cure."""
        self.launch()
        self.wait_ready()

    def claim(self) -> None:
        """Raise `StackError` with the cure if its port or its programs cannot be had; starts nothing."""
        raise NotImplementedError

    def launch(self) -> None:
        """Start the process without waiting for it."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Can a client use it now?"""
        raise NotImplementedError

    def running(self) -> subprocess.Popen[bytes]:
        """The process that was launched last. Raises `StackError` before the first launch."""
        if self.process is None:
            raise StackError(f"{self.name} was not launched: call launch() first")
        return self.process

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until a client can use it. Raises `StackError` when it ends first."""
        wait_until(self.answers, process=self.running(), log=self.log, timeout_s=timeout_s)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop it; killed after `timeout_s`. Stopping what does not run is fine."""
        if self.process is not None:
            stop(self.process, how=self.stop_signal, timeout_s=timeout_s)


def spawn(
    command: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, account: Account | None = None,
    death_signal: signal.Signals = signal.SIGKILL, pass_fds: Sequence[int] = (), directory: Path | None = None,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start `command` in its own session, its output appended to `log`.

    `death_signal` is sent to it when this thread ends. Raises `StackError` when it cannot be started.
    """
    user, group = account or (None, None)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=dict(env) if env is not None else None, cwd=directory,
                start_new_session=True, pass_fds=tuple(pass_fds), preexec_fn=die_with_parent(death_signal),  # noqa: PLW1509 - it imports nothing and takes no lock
                user=user, group=group, extra_groups=[] if account else None,
            )  # fmt: skip
    except OSError as error:
        raise StackError(f"cannot start {Path(command[0]).name}: {error}; check the file's rights and that {log.parent} is writable") from None


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn`: the child gets the signal when the thread that started it ends."""
    libc, parent = _LIBC, os.getpid()
    if libc is None:
        return None

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above took effect
            os._exit(1)

    return prepare


def stop(process: subprocess.Popen[bytes], *, how: signal.Signals = signal.SIGTERM, timeout_s: float = 10.0) -> bool:
    """Ask `process` to end and wait; after `timeout_s` kill it. True when no kill was needed."""
    if process.poll() is None:
        process.send_signal(how)
    return reap(process, timeout_s=timeout_s)


def reap(process: subprocess.Popen[bytes], *, timeout_s: float) -> bool:
    """Wait for a process that was asked to end; after `timeout_s` kill its session. True when no kill was needed."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    return True


def wait_until(ready: Callable[[], bool], *, process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> None:
    """Poll `ready` until it holds. Raises `StackError` when `process` ends first or `timeout_s` passes."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None:
            raise StackError(f"{log.stem} ended at once (exit {process.returncode}): {last_line(log)}; the whole story is in {log}")
        if time.monotonic() > deadline:
            raise StackError(f"{log.stem} was not ready within {timeout_s:g} s: {last_line(log)}; see {log}")
        time.sleep(0.02)


def last_line(log: Path) -> str:
    """The last line of a log that tells what went wrong, for an error message."""
    if not log.exists():
        return "(no log)"
    lines = [line.strip() for line in log.read_text(errors="replace")[-4000:].splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in _TELLING)]
    return (telling or lines or ["(empty log)"])[-1][:300]


def require_free_port(port: int, *, owner: str, setting: str) -> None:
    """Raise `StackError` naming `port` and `setting` (for example `HTTP_PORT + 100`) when somebody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT of the last run is no listener
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            cure = f"stop what listens there, or choose another {setting.split(maxsplit=1)[0]}"
            raise StackError(f"port {port} of {owner} ({setting}) cannot be had: {error.strerror}; {cure}") from None
