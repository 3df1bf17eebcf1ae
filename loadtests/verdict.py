"""From numbers to an exit code: 0 ok · 1 an objective missed · 2 the run is invalid (the generator's fault) · 3 an invariant broken.

A broken invariant counts whoever measured it, so 3 wins; then 2, because an invalid run has no numbers; then 1.
Pure: every path is in `tests/unit/test_load_verdict.py`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from loadtests.histogram import Histogram
from loadtests.recorder import Recorder

Kind = Literal["objective", "validity", "invariant"]
OK, MISSED, INVALID, BROKEN = 0, 1, 2, 3
NAMES: Final = {OK: "OK", MISSED: "OBJECTIVE MISSED", INVALID: "INVALID", BROKEN: "INVARIANT BROKEN"}
_ENOUGH: Final = 20  # fewer answers have no 95th percentile worth judging


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the verdict. `limit` is the most (or with `at_least` the least) allowed."""

    kind: Kind
    name: str
    measured: float
    limit: float
    unit: str = ""
    at_least: bool = False
    note: str = ""

    @property
    def holds(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"holds": self.holds}


def load_objectives(path: Path | None = None) -> dict[str, Any]:
    """`slo.toml`, or another file of that form."""
    return tomllib.loads((path or Path(__file__).with_name("slo.toml")).read_text())


def exit_code(checks: Iterable[Check]) -> int:
    """The worst of what does not hold."""
    failed = {check.kind for check in checks if not check.holds}
    return BROKEN if "invariant" in failed else INVALID if "validity" in failed else MISSED if "objective" in failed else OK


def validity(recorder: Recorder, slo: Mapping[str, Any], *, foreign_cpu: float | None = None, open_model: bool = True) -> list[Check]:
    """Is this the service's number, or the generator's?"""
    limits, done = slo["validity"], recorder.dispatch
    checks = [Check("validity", "generator CPU", round(recorder.cpu_share, 3), limits["generator_cpu"], "of a core")]
    if open_model:
        slip = done.slip_ms.percentile(0.99)
        checks.append(Check("validity", "dispatch slip p99", slip, limits["slip_p99_ms"], "ms"))
        dropped = done.dropped / done.offered if done.offered else 1.0
        checks.append(Check("validity", "dropped arrivals", round(dropped, 5), limits["dropped"], "of offered", note=f"{done.dropped}"))
    if foreign_cpu is not None:
        checks.append(Check("validity", "foreign CPU", round(foreign_cpu, 3), limits["foreign_cpu"], "of the machine"))
    if recorder.requests == 0:
        checks.append(Check("validity", "requests answered", 0, 1, at_least=True, note="nothing was measured"))
    return checks


def objectives(recorder: Recorder, slo: Mapping[str, Any], *, open_model: bool = True, count_errors: bool = True) -> list[Check]:
    """Per route p95 and p99, then errors, shed and achieved over the run. `count_errors` False: a run whose point is failure."""
    checks = []
    for name, route in recorder.routes.items():
        limits = slo["routes"].get(name, slo["routes"]["default"])
        seen = route.intended if open_model and route.intended.total else route.raw
        if seen.total < _ENOUGH:
            continue
        checks += [Check("objective", f"{name} {mark}", seen.percentile(int(mark[1:]) / 100), limits[f"{mark}_ms"], "ms") for mark in ("p95", "p99")]
    if not count_errors:
        return checks
    requests = max(1, recorder.requests)
    shed = sum(route.shed for route in recorder.routes.values())
    failed = sum(route.failed for route in recorder.routes.values())
    checks.append(Check("objective", "errors", round((failed - shed) / requests, 5), slo["run"]["errors"], "of requests"))
    checks.append(Check("objective", "shed", round(shed / requests, 5), slo["run"]["shed"], "of requests"))
    if open_model and recorder.dispatch.offered:
        served = recorder.dispatch.served / recorder.dispatch.offered
        checks.append(Check("objective", "achieved", round(served, 4), slo["run"]["achieved"], "of offered", at_least=True))
    return checks


def saga(observed: Mapping[str, float], slo: Mapping[str, Any]) -> list[Check]:
    """Fast answers over a growing backlog must not look good."""
    limits = slo["saga"]
    checks = [Check("objective", "drained after the last arrival", observed["drain_s"], limits["drain_s"], "s")]
    if observed.get("paid", 0) >= _ENOUGH:
        checks.append(Check("objective", "placed → paid p99", observed["placed_to_paid_p99_s"], limits["placed_to_paid_p99_s"], "s"))
    return checks


def invariants(violations: Mapping[str, list[str]], asked: Iterable[str]) -> list[Check]:
    """One line an invariant; its note is the first violation."""
    return [
        Check("invariant", name, len(found := violations.get(name, [])), 0, "violations", note=found[0] if found else "")
        for name in asked
    ]  # fmt: skip


def recovery_s(recorder: Recorder, fallen_at_s: float, p99_ms: float) -> float:
    """Seconds after `fallen_at_s` until the rest of the run fails nothing and has a p99 within the limit.

    The rest, not each second by itself: of twenty answers the slowest is the 99th percentile, so one would decide.
    """
    begin, end = int(fallen_at_s), max(recorder.seconds, default=int(fallen_at_s)) + 1
    rest, recovered = Histogram(), end
    for at in range(end - 1, begin - 1, -1):
        second = recorder.seconds.get(at)
        if second is not None:
            if second.counts["failed"]:
                break
            rest.merge(second.latency_ms)
        if rest.percentile(0.99) <= p99_ms:
            recovered = at
    return round(max(0.0, recovered - fallen_at_s), 1)


def slope_a_minute(points: Iterable[tuple[float, float]]) -> float:
    """Least-squares slope of (seconds, value), a minute; 0 with fewer than three points."""
    known = list(points)
    if len(known) < 3:
        return 0.0
    mean_t, mean_v = (sum(column) / len(known) for column in zip(*known, strict=True))
    spread = sum((t - mean_t) ** 2 for t, _ in known)
    return 60 * sum((t - mean_t) * (v - mean_v) for t, v in known) / spread if spread else 0.0
