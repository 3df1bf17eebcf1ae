"""From measured points to a sentence, or to a refusal: the Universal Scalability Law, capacity's search, noise bands.

USL: X(N) = λN / (1 + σ(N−1) + κN(N−1)); σ is what waits in line, κ what talks to each other; the peak is at
N* = √((1−σ)/κ). Linear in its parameters once written as N/X, so least squares needs no library.
Pure: `tests/unit/test_load_fit.py`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from loadtests.histogram import Histogram

_MIN_POINTS: Final = 6
_MIN_R2: Final = 0.95
_BISECTIONS: Final = 4
_REPEATS: Final = 3
AGREEMENT: Final = 0.20


@dataclass(frozen=True, slots=True)
class Usl:
    """A fit. `refused`: why no peak may be named; empty when it may."""

    per_user: float
    sigma: float
    kappa: float
    r2: float
    refused: str = ""

    def throughput(self, users: float) -> float:
        return self.per_user * users / (1 + self.sigma * (users - 1) + self.kappa * users * (users - 1))

    @property
    def best_users(self) -> float | None:
        """N*, where throughput peaks; None when refused or when it never falls."""
        return math.sqrt((1 - self.sigma) / self.kappa) if not self.refused and self.kappa > 1e-9 and self.sigma < 1 else None


@dataclass(frozen=True, slots=True)
class Price:
    """What a role costs: CPU `order_ms` an order, and `process` cores a process before the first order comes."""

    order_ms: float
    process: float

    def carries(self, share: float) -> float:
        """Orders a second by one process that may use this share of a core."""
        return max(0.0, share - self.process) / self.order_ms * 1000 if self.order_ms else math.inf


def fit_price(points: Sequence[tuple[int, float]], rate: float) -> Price:
    """Of (processes, cores used by all of them) at one rate: the straight line, its slope a process, what is left the orders'."""
    slope, at_none = statistics.linear_regression([count for count, _ in points], [cores for _, cores in points])
    return Price(max(0.0, at_none) / rate * 1000, max(0.0, slope))


def fit_usl(points: Sequence[tuple[float, float]]) -> Usl:
    """Fit (users, throughput). Negative parameters are set to 0 and the rest fitted again: waiting is never negative."""
    if len({users for users, _ in points}) < _MIN_POINTS or any(value <= 0 for _, value in points):
        return Usl(0, 0, 0, 0, f"{len(points)} points, at least {_MIN_POINTS} with throughput above 0 are needed")
    columns: list[Callable[[float], float]] = [lambda n: 1.0, lambda n: n - 1, lambda n: n * (n - 1)]
    kept = [0, 1, 2]
    while True:
        # Weighted by X/N: least squares of the relative error, so that the small N do not decide alone.
        rows = [([columns[k](n) * x / n for k in kept], 1.0) for n, x in points]
        solved = dict(zip(kept, _solve(rows), strict=True))
        negative = [k for k in kept[1:] if solved[k] < 0]
        if not negative:
            break
        kept.remove(min(negative, key=lambda k: solved[k]))
    base = solved[0]
    usl = Usl(1 / base, solved.get(1, 0.0) / base, solved.get(2, 0.0) / base, 0.0)
    mean = sum(x for _, x in points) / len(points)
    total = sum((x - mean) ** 2 for _, x in points)
    r2 = 1 - sum((x - usl.throughput(n)) ** 2 for n, x in points) / total if total else 0.0
    refused = "" if r2 >= _MIN_R2 else f"R² = {r2:.3f} is below {_MIN_R2}: the points do not follow the law, or the machine was not quiet"
    return Usl(usl.per_user, usl.sigma, usl.kappa, r2, refused)


def _solve(rows: Sequence[tuple[Sequence[float], float]]) -> list[float]:
    """Least squares by the normal equations, Gauss–Jordan; at most three unknowns."""
    size = len(rows[0][0])
    matrix = [[sum(a[i] * a[j] for a, _ in rows) for j in range(size)] + [sum(a[i] * b for a, b in rows)] for i in range(size)]
    for i in range(size):
        pivot = max(range(i, size), key=lambda r: abs(matrix[r][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        matrix[i] = [value / matrix[i][i] for value in matrix[i]]
        for r in range(size):
            if r != i:
                matrix[r] = [a - matrix[r][i] * b for a, b in zip(matrix[r], matrix[i], strict=True)]
    return [row[-1] for row in matrix]


@dataclass
class Capacity:
    """What the search found. `refused`: why there is no number."""

    low: float = 0.0
    high: float = 0.0
    tried: list[tuple[float, bool]] = field(default_factory=list)
    repeats: list[float] = field(default_factory=list)
    refused: str = ""


def search_capacity(holds: Callable[[float], tuple[bool, float]], *, start: float, highest: float = 20_000) -> Capacity:
    """Double the rate until an objective breaks, bisect four times, then three runs at the last that held.

    `holds(rate)` → (all objectives held, achieved a second). The three repeats must agree within 20 %, and at least
    two must hold (with one miss the range reaches down to the best rate known below it).
    """
    found = Capacity()

    def attempt(rate: float) -> bool:
        held, _ = holds(rate)
        found.tried.append((rate, held))
        return held

    rate = start
    if not attempt(rate):
        found.refused = f"an objective is missed at {start:g}/s already: begin lower with --rate"
        return found
    while rate < highest and attempt(rate * 2):
        rate *= 2
    if rate >= highest:
        found.refused = f"nothing broke up to {highest:g}/s: the generator is the limit"
        return found
    good, bad = rate, rate * 2
    for _ in range(_BISECTIONS):
        middle = (good + bad) / 2
        good, bad = (middle, bad) if attempt(middle) else (good, middle)
    outcomes = [holds(good) for _ in range(_REPEATS)]
    found.repeats = [achieved for _, achieved in outcomes]
    held = sum(ok for ok, _ in outcomes)
    found.low, found.high = min(found.repeats), max(found.repeats)
    if held < _REPEATS - 1:
        found.refused = f"at {good:g}/s the objectives held in {held} of {_REPEATS} repeats: not a stable number"
    elif not agree(found.repeats):
        found.refused = f"{_REPEATS} repeats at {good:g}/s gave {found.low:.0f} to {found.high:.0f}/s, more than ±{AGREEMENT:.0%} apart"
    return found


def agree(values: Sequence[float]) -> bool:
    """Are all within ±20 % of their middle?"""
    middle = sorted(values)[len(values) // 2]
    return all(abs(value - middle) <= AGREEMENT * middle for value in values)


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of two runs."""

    name: str
    before: float
    after: float
    noise: float

    @property
    def change(self) -> float:
        return (self.after - self.before) / self.before if self.before else 0.0

    @property
    def verdict(self) -> str:
        if abs(self.change) <= self.noise:
            return "within noise"
        return "worse" if self.change > 0 else "better"


_BEYOND: Final = 5
_FLOOR: Final = 0.10  # two runs of the same thing differ by this much for reasons no histogram knows


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """p50, p95, p99 of every route both have; the noise band is the percentiles' own confidence intervals, at least 10 %."""
    found = []
    for name in sorted(a["recorder"]["routes"].keys() & b["recorder"]["routes"].keys()):
        kind = "intended" if a["latency_from"] == b["latency_from"] == "intended" else "raw"
        left, right = (Histogram.from_json(s["recorder"]["routes"][name][kind]) for s in (a, b))
        for share in (0.5, 0.95, 0.99):
            before, after = left.percentile(share), right.percentile(share)
            if before > 0:
                found.append(
                    Difference(
                        f"{name} p{share * 100:g}", before, after, max(_FLOOR, (_half_width(left, share) + _half_width(right, share)) / before)
                    )
                )
    return found


def _half_width(histogram: Histogram, share: float) -> float:
    """Half of the 95 % confidence interval of a percentile, by order statistics."""
    n = histogram.total
    if n * (1 - share) < _BEYOND:  # fewer answers beyond it say nothing about how far it might reach
        return math.inf
    spread = 1.96 * math.sqrt(share * (1 - share) / n)
    return (histogram.percentile(min(1.0, share + spread)) - histogram.percentile(max(0.0, share - spread))) / 2
