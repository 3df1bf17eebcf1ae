"""Time as an argument: what decides by the clock takes a `Clock`, so that tests move it by hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two clocks: `monotonic()` in seconds for durations, `now()` aware UTC for facts."""

    def monotonic(self) -> float: ...

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)  # asked several times a request

    def now(self) -> datetime:
        return datetime.now(UTC)


class ManualClock:
    """A clock that moves only when told to (tests, simulations)."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2030, 1, 1, tzinfo=UTC)
        self._monotonic = 0.0

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._monotonic += seconds
        self._now = datetime.fromtimestamp(self._now.timestamp() + seconds, UTC)

    def monotonic(self) -> float:
        return self._monotonic

    def now(self) -> datetime:
        return self._now


def on_the_wire(moment: datetime) -> datetime | str:
    """As `rfc3339`, once orjson has written it with `OPT_UTC_Z`: in C, except for the moment without microseconds, whose zeros it leaves out."""
    return moment if moment.microsecond and moment.tzinfo is UTC else rfc3339(moment)


def rfc3339(moment: datetime) -> str:
    """UTC with microseconds and a `Z`: the one form of time in bodies and events."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"
