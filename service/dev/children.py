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
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Loaded here, not in the child: between fork and exec another thread may hold the loader's lock.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class StackError(Exception):
    """The embedded stack cannot run here: one sentence with the cure. The command line answers it with exit 2."""


@dataclass(frozen=True)
class Account:
    """An unprivileged user and group a child drops to."""

    uid: int
    gid: int


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    account: Account | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    pass_fds: Sequence[int] = (),
    directory: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in its own session, its output appended to `log`.

    `death_signal` is sent to it when this thread ends. Raises `StackError` when it cannot be started.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                cwd=directory,
                start_new_session=True,
                pass_fds=tuple(pass_fds),
                preexec_fn=_die_with_parent(death_signal),
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
    except OSError as error:
        raise StackError(
            f"cannot start {Path(command[0]).name}: {error}; check the file's rights and that {log.parent} is writable"
        ) from None


def _die_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    libc, parent = _LIBC, os.getpid()
    if libc is None:
        return None

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above took effect
            os._exit(1)

    return prepare


def stop(process: subprocess.Popen[bytes] | None, *, how: signal.Signals = signal.SIGTERM, timeout_s: float = 10.0) -> bool:
    """Ask `process` to end and wait; after `timeout_s` kill it. True when it ended by itself."""
    if process is None:
        return True
    if process.poll() is None:
        process.send_signal(how)
    return reap(process, timeout_s=timeout_s)


def reap(process: subprocess.Popen[bytes], *, timeout_s: float) -> bool:
    """Wait for a process that was asked to end; after `timeout_s` kill it and what it started. True when no kill was needed."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    return True


def wait_until(
    ready: Callable[[], bool], *, process: subprocess.Popen[bytes], what: str, log: Path, timeout_s: float, poll_s: float = 0.02
) -> None:
    """Poll `ready` until it holds. Raises `StackError` when `process` ends first or `timeout_s` passes."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None:
            raise StackError(f"{what} ended at once (exit {process.returncode}): {last_line(log)} – the whole story is in {log}")
        if time.monotonic() > deadline:
            raise StackError(f"{what} did not become ready within {timeout_s:g} s: {last_line(log)} – see {log}")
        time.sleep(poll_s)


def last_line(log: Path) -> str:
    """The last line of a log that says something, for an error message."""
    try:
        lines = log.read_text(errors="replace")[-4000:].splitlines()
    except OSError:
        return "(no log)"
    telling = [line for line in lines if any(word in line for word in ("FATAL", "ERROR", "Error", "rror:"))]
    return (telling or [line for line in lines if line.strip()] or ["(empty log)"])[-1].strip()[:300]


def require_free_port(port: int, *, owner: str, setting: str) -> None:
    """Raise `StackError` naming `port` and `setting` (for example `HTTP_PORT + 100`) when somebody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT of the last run is no listener
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StackError(
                f"port {port} of {owner} ({setting}) cannot be had: {error.strerror}; "
                f"stop what listens there, or choose another {setting.split()[0]}"
            ) from None
