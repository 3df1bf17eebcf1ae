"""What holds a whole group back: an outage of its infrastructure, and a flood of dead letters.

`Gate` closes while the infrastructure is away: nothing is rerouted and no attempt used. `DeadLetterBreaker` opens
when a group gives up on too much (a broken deploy must not empty the topic) and then tries one record every five
minutes. Both pause; neither drops. Tests: tests/unit/test_gate.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Literal

from service.foundation.clock import Clock
from service.foundation.log import get_logger
from workers import signals

log = get_logger(__name__)

LETTERS: Final = 50
RATIO: Final = 0.2
WINDOW_S: Final = 60.0
OPEN_S: Final = 300.0
_LOOK_S: Final = 1.0
# A record that moved to a tier has not ended: a broken handler would dilute its own dead letters with them.
_ENDED: Final = frozenset({"applied", "duplicate", "superseded", "dead"})


class Gate:
    """Open: records of the group may run. A pause closes it for all of the group's partitions."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._open = asyncio.Event()
        self._open.set()
        self._pauses = 0

    @property
    def closed(self) -> bool:
        return not self._open.is_set()

    @property
    def pauses(self) -> int:
        """Pauses in a row."""
        return self._pauses

    async def passed(self) -> None:
        """Wait until the group may go on."""
        await self._open.wait()

    async def pause(self, delay_s: float, error: BaseException) -> None:
        """Close the gate for `delay_s`; records that fail meanwhile wait with it."""
        if self.closed:
            await self._open.wait()
            return
        self._pauses += 1
        self._open.clear()
        log.warning("group.paused", group=self._group, delay_s=round(delay_s, 2), error=type(error).__name__)
        try:
            await asyncio.sleep(delay_s)
        finally:
            self._open.set()

    def worked(self) -> None:
        """A record went through: the next pause starts short again."""
        self._pauses = 0


class DeadLetterBreaker:
    """More than 50 dead letters a minute and more than 20 % of what ended: stop, then one trial every 5 minutes.

    One for all of a group's consumers in a process. Records under way when it opens still end (at most the concurrency).
    """

    def __init__(self, group: str, *, clock: Clock) -> None:
        self._group = group
        self._clock = clock
        self._ends: deque[tuple[float, bool]] = deque()
        self._dead = 0
        self._until = 0.0
        self.state: Literal["closed", "open", "half-open"] = "closed"
        signals.letters_breaker.labels(group).set(0)

    def allow(self) -> bool:
        """May a record begin now? Once open: no, until the pause is over; then one."""
        if self.state == "closed":
            return True
        if self.state == "half-open" or self._clock.monotonic() < self._until:
            return False
        self._move("half-open")
        return True

    async def passed(self) -> bool:
        """Wait until a record may begin; True if it is the trial (whose end must be told with `trial=True`)."""
        while not self.allow():  # noqa: ASYNC110 - what it waits for is time
            await asyncio.sleep(min(_LOOK_S, max(0.01, self._until - self._clock.monotonic())))
        return self.state == "half-open"

    def ended(self, outcome: str, *, trial: bool = False) -> None:
        """A record came to `outcome`; "" for a trial that was cut off."""
        now = self._clock.monotonic()
        if trial:
            self._judge(outcome, now)
            return
        if outcome not in _ENDED:
            return
        self._ends.append((now, outcome == "dead"))
        self._dead += outcome == "dead"
        while self._ends[0][0] < now - WINDOW_S:
            self._dead -= self._ends.popleft()[1]
        if self.state == "closed" and self._dead > LETTERS and self._dead > RATIO * len(self._ends):
            log.error("group.too_many_dead_letters", group=self._group, letters=self._dead, records=len(self._ends), trial_in_s=OPEN_S)
            self._open(now + OPEN_S)

    def _judge(self, outcome: str, now: float) -> None:
        if outcome in {"dead", "retried"}:
            self._open(now + OPEN_S)
        elif outcome in _ENDED:
            self._ends.clear()
            self._dead = 0
            log.info("group.goes_on", group=self._group)
            self._move("closed")
        else:  # ignored, or cut off: it says nothing, the next record may be the trial
            self._open(now)

    def _open(self, until: float) -> None:
        self._until = until
        self._move("open")

    def _move(self, state: Literal["closed", "open", "half-open"]) -> None:
        self.state = state
        signals.letters_breaker.labels(self._group).set(state != "closed")
