"""A process from start to stop: signals, readiness, heartbeats, and the order of going away.

First SIGTERM or SIGINT: not ready, finish what is in hand, exit 0. A second one: exit at once.
Live means "the loops turn", ready means "send me work"; losing a dependency is neither (docs/adr/0014).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Final

from service.foundation import metrics
from service.foundation.log import get_logger

log = get_logger(__name__)

HEARTBEAT_MAX_S: Final = 60.0
_FORCED_EXIT: Final = 130


class Lifecycle:
    """What a process says about itself; one instance a process, owned by the event loop."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.started = False
        self._beats: dict[str, float] = {}
        self._not_ready: dict[str, str] = {"startup": "starting"}

    def install_signals(self) -> None:
        """Route SIGTERM and SIGINT here."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def begin(self) -> None:
        """Start-up is done: ready, unless something else says no."""
        self.started = True
        self._not_ready.pop("startup", None)

    def stop(self) -> None:
        """Begin to go away (idempotent)."""
        self._not_ready["draining"] = "draining"
        self.stopping.set()

    def set_ready(self, part: str, reason: str | None) -> None:
        """`reason` keeps the process from being ready because of `part`; None clears it."""
        if reason is None:
            self._not_ready.pop(part, None)
        else:
            self._not_ready[part] = reason

    def beat(self, loop_name: str) -> None:
        """Called by every long-lived loop each turn; a loop silent for 60 s makes the process not live."""
        self._beats[loop_name] = time.monotonic()

    def forget(self, loop_name: str) -> None:
        """The loop ended on purpose."""
        self._beats.pop(loop_name, None)

    def not_ready(self) -> dict[str, str]:
        """Part → reason; empty when ready."""
        return dict(self._not_ready)

    def oldest_beat_s(self) -> float:
        """Age of the slowest loop's last turn, seconds."""
        now = time.monotonic()
        age = max((now - beat for beat in self._beats.values()), default=0.0)
        metrics.heartbeat_age.set(age)
        return age

    @property
    def live(self) -> bool:
        return self.oldest_beat_s() < HEARTBEAT_MAX_S

    async def sleep(self, seconds: float) -> None:
        """Sleep, but wake at once when the process is asked to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return

    def _on_signal(self, number: int) -> None:
        if self.stopping.is_set():
            log.warning("process.forced_exit", signal=number)
            os._exit(_FORCED_EXIT)
        log.info("process.stopping", signal=number)
        self.stop()
