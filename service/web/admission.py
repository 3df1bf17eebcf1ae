"""How much this process works on at once: a fixed limit (Little's law), three lanes, a short wait, then 503.

critical (writes) may use all slots, normal reads 85 %, sheddable lists 60 %: under overload lists go first.
Looked at before anything costs; taken after the body is complete, so that slow senders hold no slot.
Why fixed and not adaptive: docs/adr/0017. Tests: tests/unit/test_admission.py, tests/stories (H1).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Literal

from service.errors import Overloaded
from service.foundation import metrics

Lane = Literal["critical", "normal", "sheddable"]

_SHARES: Final[dict[Lane, float]] = {"critical": 1.0, "normal": 0.85, "sheddable": 0.6}
_MAX_WAITING: Final = 256
_MAX_RECEIVING: Final = 512


class Admission:
    """Slots of one process; one event loop owns it."""

    def __init__(self, limit: int, *, wait_s: float) -> None:
        self.limit = limit
        self.in_flight = 0
        self._wait_s = wait_s
        self._caps = {lane: max(1, int(limit * share)) for lane, share in _SHARES.items()}
        self._waiting: dict[Lane, deque[asyncio.Future[None]]] = {lane: deque() for lane in _SHARES}
        self._receiving = self._queued = 0
        metrics.admission_limit.set(limit)
        metrics.admission_in_flight.set_function(lambda: self.in_flight)  # asked when it is read: a request pays nothing
        for lane in _SHARES:
            metrics.shed.labels(lane)

    def look(self, lane: Lane) -> None:
        """Raises `Overloaded` if waiting would be pointless; costs two comparisons."""
        if self.in_flight >= self._caps[lane] and len(self._waiting[lane]) >= min(_MAX_WAITING, self.limit):
            self._shed(lane)

    def begin_receiving(self) -> None:
        """A body is being received: bounded apart from the slots; pair with `end_receiving`. Raises `Overloaded`."""
        if self._receiving >= _MAX_RECEIVING:
            self._shed("normal")
        self._receiving += 1

    def end_receiving(self) -> None:
        """The body is complete, or given up."""
        self._receiving -= 1

    def enter_at_once(self, lane: Lane) -> bool:
        """Take a slot if one is free and nobody waits for it; pair with `leave`."""
        if self.in_flight >= self._caps[lane] or self._waiting[lane]:
            return False
        self.in_flight += 1
        return True

    async def enter(self, lane: Lane) -> None:
        """Take a slot; pair with `leave`. Raises `Overloaded` when none is free within the wait."""
        if not self.enter_at_once(lane):
            await self._wait(lane)

    def leave(self) -> None:
        """Give the slot back, to whoever waits in the most important lane."""
        self.in_flight -= 1
        if self._queued:
            self._wake()

    async def _wait(self, lane: Lane) -> None:
        if len(self._waiting[lane]) >= _MAX_WAITING:
            self._shed(lane)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[lane].append(turn)
        self._queued += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except TimeoutError:
            if not self._give_back(turn):
                self._shed(lane)
        except asyncio.CancelledError:
            if self._give_back(turn):
                self.in_flight -= 1
                self._wake()
            raise
        finally:
            self._queued -= 1
            if turn in self._waiting[lane]:
                self._waiting[lane].remove(turn)

    @staticmethod
    def _give_back(turn: asyncio.Future[None]) -> bool:
        """True if the slot was handed over in the very moment of giving up."""
        return turn.done() and not turn.cancelled()

    def _wake(self) -> None:
        for lane in _SHARES:
            waiting = self._waiting[lane]
            while waiting and self.in_flight < self._caps[lane]:
                turn = waiting.popleft()
                if not turn.done():
                    self.in_flight += 1
                    turn.set_result(None)

    @staticmethod
    def _shed(lane: Lane) -> None:
        metrics.shed.labels(lane).inc()
        raise Overloaded
