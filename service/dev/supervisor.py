"""Keeps a set of child processes alive: a dead one is reported and restarted with backoff, a signal stops all in order.

SIGINT, SIGTERM and SIGHUP raise `KeyboardInterrupt` in the main thread once; a second signal kills what is
left. When this fails, `up` leaves processes behind or a dead worker stays dead
(`tests/integration/test_embedded_servers.py`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

from service.dev.children import StackError, reap

_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_STABLE_S = 30.0  # alive this long: the next death starts the backoff anew
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Child:
    """One supervised process. `rank`: lower ranks are stopped first. `start` answers the new process."""

    name: str
    role: str
    rank: int
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]
    ops_url: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 15.0
    started_at: float = 0.0
    deaths: int = 0
    restart_at: float | None = None


class Supervisor:
    """Use as a context manager in the main thread; leaving it stops every child. `on_change`: called when one was replaced."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.children: list[Child] = []
        self._say = say
        self.on_change: Callable[[], None] = lambda: None
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._previous = {name: signal.signal(name, self._interrupt) for name in _STOP_SIGNALS}
        # A handler must exist for the wake-up descriptor to be written when a child ends.
        self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping = True
        self._stop_all()
        signal.set_wakeup_fd(-1)
        for name, handler in self._previous.items():
            signal.signal(name, handler)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def add(self, child: Child) -> None:
        """Take over a process that was started already."""
        child.started_at = time.monotonic()
        self.children.append(child)

    def require_alive(self, names: Collection[str]) -> None:
        """For waiting on their readiness: one that ended is started once more, for on a busy machine a connection may take too long.

        Raises `StackError` naming one that ended twice.
        """
        for child in self.children:
            if child.name in names and (code := child.process.poll()) is not None:
                if not child.deaths:
                    child.deaths = 1
                    self._say(f"! {child.name} (pid {child.process.pid}) ended, {_reason(code)}, while starting; once more")
                    self._start(child)
                    continue
                raise StackError(f"{child.name} ended (exit {child.process.returncode}) while starting: see logs/{child.name}.log")

    def watch(self, tick: Callable[[], None] | None = None, *, tick_s: float = 0.5) -> None:
        """Restart what dies, until a signal raises `KeyboardInterrupt`. `tick` is called every `tick_s`."""
        while True:
            now = time.monotonic()
            for child in self.children:
                self._look_after(child, now)
            due = [child.restart_at - now for child in self.children if child.restart_at is not None]
            timeout_s = min([*due, tick_s] if tick else [*due, 60.0])
            select.select([self._wake_read], [], [], max(0.0, timeout_s))
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            if tick:
                tick()

    def restart(self, children: Iterable[Child]) -> None:
        """Stop and start these children, for example after a source file changed."""
        chosen = list(children)
        self._stop(chosen)
        for child in chosen:
            self._start(child)

    def _look_after(self, child: Child, now: float) -> None:
        if child.restart_at is not None:
            if now >= child.restart_at:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            return
        child.deaths = 0 if now - child.started_at > _STABLE_S else child.deaths
        delay_s = _BACKOFF_S[min(child.deaths, len(_BACKOFF_S) - 1)]
        child.deaths += 1
        child.restart_at = now + delay_s
        self._say(f"! {child.name} (pid {child.process.pid}) ended, {_reason(code)}; restarting it in {delay_s:g} s")

    def _start(self, child: Child) -> None:
        child.restart_at = None
        try:
            child.process = child.start()
        except (StackError, OSError, subprocess.SubprocessError) as error:
            child.restart_at = time.monotonic() + _BACKOFF_S[-1]
            self._say(f"! {child.name} did not start: {error}; trying again in {_BACKOFF_S[-1]:g} s")
            return
        child.started_at = time.monotonic()
        self._say(f"  {child.name} runs again, pid {child.process.pid}")
        self.on_change()

    def _stop_all(self) -> None:
        if not self.children:
            return
        begin = time.monotonic()
        for rank in sorted({child.rank for child in self.children}):
            self._stop([child for child in self.children if child.rank == rank])
        self._say(f"stopped {len(self.children)} processes in {time.monotonic() - begin:.1f} s")

    def _stop(self, children: list[Child]) -> None:
        alive = [child for child in children if child.process.poll() is None]
        for child in alive:
            child.process.send_signal(child.stop_signal)  # once: a second signal means "at once" to our processes
        begin = time.monotonic()
        for child in alive:
            left_s = max(0.1, begin + child.stop_timeout_s - time.monotonic())
            if not reap(child.process, timeout_s=left_s):
                self._say(f"! {child.name} did not stop within {child.stop_timeout_s:g} s and was killed: see logs/{child.name}.log")

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if not self._stopping:
            self._stopping = True
            raise KeyboardInterrupt
        for child in self.children:  # a second signal: no more patience
            if child.process.poll() is None:
                child.process.kill()


def _reason(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
