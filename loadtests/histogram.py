"""Latencies kept to three significant digits: a dict of value → count that merges by adding.

Two digits (locust's own rounding) turn 1,049 ms into 1,000; three keep every percentile within 0.5 %.
When this is wrong every percentile is (`tests/unit/test_load_arithmetic.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Self


def three_digits(value: float) -> float:
    """`value` rounded to three significant digits, and never finer than a microsecond of a millisecond figure."""
    if value <= 0:
        return 0.0
    return round(value, min(3, 2 - math.floor(math.log10(value))))


class Histogram:
    """How often each (rounded) value was seen."""

    __slots__ = ("counts", "total")

    def __init__(self, counts: Mapping[float, int] | None = None) -> None:
        self.counts: dict[float, int] = dict(counts or {})
        self.total = sum(self.counts.values())

    def add(self, value: float, times: int = 1) -> None:
        """Count a value."""
        rounded = three_digits(value)
        self.counts[rounded] = self.counts.get(rounded, 0) + times
        self.total += times

    def merge(self, other: Histogram) -> Self:
        """Add another's counts to these."""
        for value, times in other.counts.items():
            self.counts[value] = self.counts.get(value, 0) + times
        self.total += other.total
        return self

    def percentile(self, share: float) -> float:
        """The smallest value that at least `share` (0…1) of all values do not exceed; 0 when nothing was counted."""
        needed, seen = math.ceil(share * self.total), 0
        for value in sorted(self.counts):
            seen += self.counts[value]
            if seen >= max(1, needed):
                return value
        return 0.0

    @property
    def highest(self) -> float:
        """The largest value; 0 when nothing was counted."""
        return max(self.counts, default=0.0)

    @property
    def mean(self) -> float:
        """The average; 0 when nothing was counted."""
        return sum(value * times for value, times in self.counts.items()) / self.total if self.total else 0.0

    def cumulative(self, points: int = 200) -> list[tuple[float, float]]:
        """(value, share at or below it), thinned to at most about `points` pairs, for a CDF."""
        found, seen, told = [], 0, -1.0
        for value in sorted(self.counts):
            seen += self.counts[value]
            share = seen / self.total
            if share - told >= 1 / points or seen == self.total:
                found.append((value, share))
                told = share
        return found

    def to_json(self) -> list[list[float]]:
        """Pairs, since JSON has no numbers as keys."""
        return [[value, times] for value, times in sorted(self.counts.items())]

    @classmethod
    def from_json(cls, pairs: Iterable[Iterable[float]]) -> Histogram:
        """What `to_json` wrote."""
        return cls({value: int(times) for value, times in pairs})
