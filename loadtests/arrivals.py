"""When requests should arrive: the rate as a function of time, and a dispatcher that keeps to it whatever the server does.

The times are computed from the rate alone, before anything is sent: a slow server cannot slow the arrivals down,
so it cannot hide behind them (coordinated omission). The dispatcher knows no gevent and no HTTP: clock, sleep and
start are given, so that `tests/unit/test_load_arrivals.py` runs it in virtual time.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from loadtests.histogram import Histogram

_FAR_BEHIND_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Leg:
    """For `seconds` the rate goes in a straight line from one value to the other."""

    seconds: float
    from_rate: float
    to_rate: float

    @property
    def arrivals(self) -> float:
        return self.seconds * (self.from_rate + self.to_rate) / 2


class Shape:
    """A rate over time, made of legs."""

    def __init__(self, legs: Sequence[Leg]) -> None:
        if not legs or any(leg.seconds <= 0 or min(leg.from_rate, leg.to_rate) < 0 for leg in legs):
            raise ValueError("a shape needs legs of positive length and rates of 0 or more")
        self.legs = tuple(legs)
        self._ends_s, self._totals = [0.0], [0.0]
        for leg in self.legs:
            self._ends_s.append(self._ends_s[-1] + leg.seconds)
            self._totals.append(self._totals[-1] + leg.arrivals)

    @property
    def seconds(self) -> float:
        return self._ends_s[-1]

    @property
    def arrivals(self) -> float:
        """Expected number of arrivals."""
        return self._totals[-1]

    @property
    def peak(self) -> float:
        return max(max(leg.from_rate, leg.to_rate) for leg in self.legs)

    def rate(self, at_s: float) -> float:
        """Arrivals a second at that moment; 0 outside the shape."""
        if not 0 <= at_s < self.seconds:
            return 0.0
        index = max(0, bisect_left(self._ends_s, at_s) - 1)
        leg, into_s = self.legs[index], at_s - self._ends_s[index]
        return leg.from_rate + (leg.to_rate - leg.from_rate) * into_s / leg.seconds

    def when(self, number: float) -> float | None:
        """The moment at which `number` arrivals are expected to have happened; None after the end."""
        index = bisect_left(self._totals, number) - 1
        if number >= self.arrivals:
            return None
        index = max(0, index)
        while self.legs[index].arrivals == 0:
            index += 1
        leg, wanted = self.legs[index], number - self._totals[index]
        slope = (leg.to_rate - leg.from_rate) / leg.seconds
        if abs(slope) < 1e-12:
            return self._ends_s[index] + wanted / leg.from_rate
        root = math.sqrt(max(0.0, leg.from_rate**2 + 2 * slope * wanted))
        return self._ends_s[index] + (root - leg.from_rate) / slope


def intended_times(shape: Shape, *, part: int = 0, parts: int = 1, poisson: random.Random | None = None) -> Iterator[float]:
    """Seconds after the start at which this part of the arrivals is due. `poisson`: random gaps instead of even ones.

    Even: part i takes every `parts`-th arrival, so that the parts together are evenly spaced.
    Random: each part is a Poisson process of its share, which together are one of the whole rate.
    """
    number = float(part)
    while True:
        if poisson is not None:
            number += poisson.expovariate(1.0) * parts
        at_s = shape.when(number)
        if at_s is None:
            return
        yield at_s
        if poisson is None:
            number += parts


@dataclass(slots=True)
class Dispatch:
    """What a dispatcher did: the generator's own health."""

    offered: int = 0
    started: int = 0
    served: int = 0  # ended, and every answer was as wanted
    dropped: int = 0  # no user was free
    slip_ms: Histogram = field(default_factory=Histogram)


class Dispatcher:
    """Starts one action at each due moment. `clock`: seconds; `start`: begins the action, False when the pool is full."""

    def __init__(self, *, clock: Callable[[], float], sleep: Callable[[float], None], start: Callable[[float], bool]) -> None:
        self._clock, self._sleep, self._start = clock, sleep, start
        self.done = Dispatch()
        self.stopped = False

    def run(self, times: Iterator[float]) -> None:
        """Until the times end or `stopped`; a moment that was missed is made up for at once, never skipped."""
        begin = self._clock()
        for at_s in times:
            due = begin + at_s
            while not self.stopped and (left_s := due - self._clock()) > 0:
                self._sleep(left_s)
            if self.stopped:
                return
            self.done.offered += 1
            if self._start(due):
                self.done.started += 1
            else:
                self.done.dropped += 1
            if self._clock() - due > _FAR_BEHIND_S:
                self._sleep(0)  # while catching up, let what was started run: its slip is measured, not hidden

    def note_start(self, due: float) -> None:
        """Called by the action as the first thing it does: how late it is."""
        self.done.slip_ms.add(max(0.0, self._clock() - due) * 1000)
