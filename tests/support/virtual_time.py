"""An event loop whose time passes only when nothing else is to do: minutes of waiting run in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from datetime import UTC, datetime, timedelta
from typing import Any, Final

EPOCH: Final = datetime(2030, 1, 1, tzinfo=UTC)


class _Jump(selectors.DefaultSelector):
    """Instead of sleeping, moves the loop's clock."""

    elapsed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("nothing will ever happen again: every task waits for another one")
        self.elapsed += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """No sockets, no threads, no signals: what runs here talks to fakes only."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.elapsed


class VirtualClock:
    """The loop's time as a `Clock`."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.monotonic())
