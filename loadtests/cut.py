"""A dependency that is away for a while: its processes are stopped by signal, so calls to it hang rather than fail.

Whatever happens to the run, the processes go on afterwards.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

import psutil


class Cut:
    """Stops the processes `after_s` from `start`, for `for_s`; use as a context manager."""

    def __init__(self, pids: Iterable[int], *, after_s: float, for_s: float, every_s: float = 0.0) -> None:
        self._pids, self._after_s, self._for_s, self._every_s = list(pids), after_s, for_s, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.times = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self._signal(signal.SIGCONT)

    def start(self) -> None:
        """The clock runs from now."""
        self._thread.start()

    def _work(self) -> None:
        wait_s = self._after_s
        while not self._over.wait(max(0.0, wait_s)):
            self.times += 1
            self._signal(signal.SIGSTOP)
            self._over.wait(self._for_s)
            self._signal(signal.SIGCONT)
            if not self._every_s:
                return
            wait_s = self._every_s - self._for_s

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids:
            with suppress(psutil.Error, ProcessLookupError):
                family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
                for member in family:
                    os.kill(member, number)
