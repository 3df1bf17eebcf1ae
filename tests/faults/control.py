"""Signals to the processes of a running stack, by name or role from `stack.json`, and waiting for what follows.

A killed child is restarted by the stack's supervisor; a stopped one stays stopped until `resume`.
Tests: tests/faults/test_control.py.
"""

from __future__ import annotations

import http.client
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from service.dev.state import read_stack

DEADLINE_S: Final = 30.0


class StackControl:
    """The processes of the stack whose state folder is `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def members(self, name: str) -> list[dict[str, Any]]:
        """Processes with this name or role, as `stack.json` has them now. Raises `LookupError` for none."""
        found = [p for p in read_stack(self.home)["processes"] if name in (p["name"], p["role"])]
        if not found:
            raise LookupError(f"no process {name!r} in {self.home}/stack.json")
        return found

    def pid(self, name: str) -> int:
        """Process id of the first process with this name or role."""
        return int(self.members(name)[0]["pid"])

    def kill(self, name: str) -> int:
        """SIGKILL; answers the id that was killed. The supervisor starts another."""
        return self._signal(name, signal.SIGKILL)

    def terminate(self, name: str) -> int:
        """SIGTERM: an orderly end; the supervisor starts another."""
        return self._signal(name, signal.SIGTERM)

    @contextmanager
    def stopped(self, name: str) -> Iterator[int]:
        """SIGSTOP inside, SIGCONT at the end: a process that hangs, or a zombie that comes back."""
        pid = self._signal(name, signal.SIGSTOP)
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGCONT)

    def await_replaced(self, name: str, pid: int) -> int:
        """Wait until another process than `pid` stands under this name and is ready; answers its id."""
        wait_for(lambda: self.pid(name) != pid, f"{name} was not restarted")
        self.await_ready(name)
        return self.pid(name)

    def await_ready(self, name: str) -> None:
        """Wait until its health page answers 200 (servers without one are not waited for)."""
        ops_url = self.members(name)[0]["ops_url"]
        if ops_url:
            wait_for(lambda: _ready(ops_url), f"{name} did not get ready")

    def _signal(self, name: str, number: signal.Signals) -> int:
        pid = self.pid(name)
        os.kill(pid, number)
        return pid


def state_of(pid: int) -> str:
    """The kernel's letter for a process: R, S, T (stopped) …; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def wait_for(holds: Callable[[], bool], otherwise: str, *, deadline_s: float = DEADLINE_S) -> None:
    """Poll until it holds. Raises `TimeoutError` saying what did not happen."""
    deadline = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{otherwise} within {deadline_s:g} s: see the logs in the state folder")
        time.sleep(0.02)


def _ready(ops_url: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(ops_url).netloc, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
