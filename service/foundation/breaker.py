"""A circuit breaker: after enough failures, fail at once instead of waiting for what is down.

Opens at ≥ 20 calls with ≥ 50 % failures in 10 s (or at `streak` failures in a row), for 5 s ± 20 %;
then one trial call decides. A closed breaker costs two comparisons a call.
Pure given its clock; tests/unit/test_breaker.py walks the states.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Literal

from service.foundation.backoff import Uniform, proportional
from service.foundation.clock import Clock, SystemClock

WINDOW_S: Final = 10.0
MINIMUM_CALLS: Final = 20
FAILURE_RATIO: Final = 0.5
OPEN_S: Final = 5.0

State = Literal["closed", "open", "half-open"]


class Breaker:
    """State over time for one dependency. Not thread-safe: one event loop owns it."""

    def __init__(
        self,
        name: str,
        *,
        streak: int | None = None,
        open_s: float = OPEN_S,
        clock: Clock | None = None,
        uniform: Uniform = random.uniform,
        changed: Callable[[str, State], None] = lambda name, state: None,
    ) -> None:
        self.name = name
        self._streak_limit = streak
        self._open_s = open_s
        self._clock = clock or SystemClock()
        self._uniform = uniform
        self._changed = changed
        self._state: State = "closed"
        self._until = 0.0
        self._streak = 0
        self._reset_window()

    @property
    def state(self) -> State:
        return self._state

    def allow(self) -> bool:
        """True if a call may be made now. In half-open one caller gets True, the others False."""
        if self._state == "closed":
            return True
        if self._clock.monotonic() < self._until:
            return False
        # One trial at a time; if its result never comes back, the next one may try later.
        self._until = self._clock.monotonic() + self._open_s
        self._move("half-open")
        return True

    def succeeded(self) -> None:
        """Report a call that worked."""
        if self._state != "closed":
            self._reset_window()
            self._move("closed")
        elif self._clock.monotonic() - self._window_start <= WINDOW_S:  # as `_count`, without the call: every request comes by
            self._calls += 1
            self._streak = 0
        else:
            self._count(failed=False)

    def failed(self) -> None:
        """Report a call that did not work (refused, timed out; not a business answer)."""
        self._count(failed=True)
        if self._state == "half-open" or (self._state == "closed" and self._tripped()):
            self._until = self._clock.monotonic() + proportional(self._open_s, spread=0.2, uniform=self._uniform)
            self._move("open")

    def _tripped(self) -> bool:
        if self._streak_limit is not None and self._streak >= self._streak_limit:
            return True
        return self._calls >= MINIMUM_CALLS and self._failures >= FAILURE_RATIO * self._calls

    def _count(self, *, failed: bool) -> None:
        if self._clock.monotonic() - self._window_start > WINDOW_S:
            streak = self._streak
            self._reset_window()
            self._streak = streak  # a slow trickle of failures is still a streak
        self._calls += 1
        self._failures += failed
        self._streak = self._streak + 1 if failed else 0

    def _reset_window(self) -> None:
        self._window_start = self._clock.monotonic()
        self._calls = 0
        self._failures = 0
        self._streak = 0

    def _move(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self._changed(self.name, state)
