"""What a generator saw: by route and by second, from the intended moment and from the moment of sending.

Several generator processes each keep one and hand in what is new; the sums are exact, percentiles too, because
histograms merge by adding. Knows no locust. Test: `tests/unit/test_load_arithmetic.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from loadtests.arrivals import Dispatch
from loadtests.histogram import Histogram

_SAMPLES: Final = 3
_COUNTS: Final = ("offered", "done", "failed", "shed", "dropped")
_DISPATCH: Final = ("offered", "started", "served", "dropped")


@dataclass(slots=True)
class Route:
    """One route template: `raw` from sending, `intended` from when it was due (empty in a closed run)."""

    raw: Histogram = field(default_factory=Histogram)
    intended: Histogram = field(default_factory=Histogram)
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(times for name, times in self.outcomes.items() if name != "ok")

    @property
    def shed(self) -> int:
        return self.outcomes["shed"]

    def merge(self, other: Route) -> Self:
        self.raw.merge(other.raw)
        self.intended.merge(other.intended)
        self.outcomes.update(other.outcomes)
        self.errors = (self.errors + other.errors)[:_SAMPLES]
        return self


@dataclass(slots=True)
class Second:
    """One second of the run."""

    counts: Counter[str] = field(default_factory=Counter)
    latency_ms: Histogram = field(default_factory=Histogram)


class Recorder:
    """Counts until `drain`, which hands over and starts again from nothing."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.seconds: dict[int, Second] = {}
        self.dispatch = Dispatch()
        self.cpu_share = 0.0

    def request(self, name: str, *, at_s: float, raw_ms: float, intended_ms: float | None, outcome: str, error: str = "") -> None:
        """One answer. `outcome`: ok, shed (503), limited (429), timeout or error; `at_s`: seconds after the start."""
        route = self.routes.setdefault(name, Route())
        route.raw.add(raw_ms)
        if intended_ms is not None:
            route.intended.add(intended_ms)
        route.outcomes[outcome] += 1
        if error and len(route.errors) < _SAMPLES:
            route.errors.append(error[:200])
        second = self._second(at_s)
        second.counts["done" if outcome == "ok" else "failed"] += 1
        second.counts["shed"] += outcome == "shed"
        second.latency_ms.add(raw_ms if intended_ms is None else intended_ms)

    def complain(self, name: str, error: str) -> None:
        """What single answers do not show: several of them contradict each other."""
        route = self.routes.setdefault(name, Route())
        route.outcomes["error"] += 1
        if len(route.errors) < _SAMPLES:
            route.errors.append(error[:200])

    def arrival(self, at_s: float, *, dropped: bool) -> None:
        """One arrival that was due at that second."""
        second = self._second(at_s)
        second.counts["offered"] += 1
        second.counts["dropped"] += dropped

    def _second(self, at_s: float) -> Second:
        return self.seconds.setdefault(int(max(0.0, at_s)), Second())

    def drain(self) -> dict[str, Any]:
        """Everything so far as plain data, and forget it."""
        data = self.to_json()
        self.routes, self.seconds = {}, {}
        for name in _DISPATCH:
            setattr(self.dispatch, name, 0)
        self.dispatch.slip_ms = Histogram()
        return data

    def merge(self, data: Mapping[str, Any]) -> None:
        """Add what another one drained."""
        for name, said in data["routes"].items():
            theirs = Route(Histogram.from_json(said["raw"]), Histogram.from_json(said["intended"]), Counter(said["outcomes"]), said["errors"])
            self.routes.setdefault(name, Route()).merge(theirs)
        for at, said in data["seconds"]:
            second = self.seconds.setdefault(at, Second())
            second.counts.update(said["counts"])
            second.latency_ms.merge(Histogram.from_json(said["latency_ms"]))
        said = data["dispatch"]
        for name in _DISPATCH:
            setattr(self.dispatch, name, getattr(self.dispatch, name) + said[name])
        self.dispatch.slip_ms.merge(Histogram.from_json(said["slip_ms"]))
        self.cpu_share = max(self.cpu_share, data["cpu_share"])  # the busiest process is the one that lies first

    def to_json(self) -> dict[str, Any]:
        """As plain data; `merge` reads it."""
        routes = {
            name: {"raw": r.raw.to_json(), "intended": r.intended.to_json(), "outcomes": dict(r.outcomes), "errors": r.errors}
            for name, r in sorted(self.routes.items())
        }
        seconds = [[at, {"counts": dict(s.counts), "latency_ms": s.latency_ms.to_json()}] for at, s in sorted(self.seconds.items())]
        done = self.dispatch
        dispatch = {**{name: getattr(done, name) for name in _DISPATCH}, "slip_ms": done.slip_ms.to_json()}
        return {"routes": routes, "seconds": seconds, "dispatch": dispatch, "cpu_share": self.cpu_share}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recorder:
        """What `to_json` wrote."""
        made = cls()
        made.merge(data)
        return made

    # -- sums over the run

    def all_routes(self, *, intended: bool) -> Histogram:
        """All latencies of the run."""
        total = Histogram()
        for route in self.routes.values():
            total.merge(route.intended if intended else route.raw)
        return total

    @property
    def requests(self) -> int:
        return sum(route.raw.total for route in self.routes.values())

    def timeline(self) -> list[dict[str, float]]:
        """One row a second: counts, and p50, p95, p99 of what ended in it."""
        rows = []
        for at in range(max(self.seconds, default=-1) + 1):
            second = self.seconds.get(at, Second())
            row: dict[str, float] = {"t": at, **{name: second.counts[name] for name in _COUNTS}}
            rows.append(row | {f"p{p}_ms": second.latency_ms.percentile(p / 100) for p in (50, 95, 99)})
        return rows
