"""The verdict, the table and `results/latest.json`.

ok: every must is met · missed: one is not · inconclusive: the floors vary by more than 40 % between rounds (third
quartile over first), or a floor against itself does not read 1.0 ± 0.08. Tests: tests/faults/test_measuring.py.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from bench.arms import Arm
from bench.goals import FLOOR_SPREAD_MAX, GOALS, SELF_RATIO_MAX
from bench.rounds import Series

Verdict = Literal["ok", "missed", "inconclusive"]
RESULTS: Final = Path(__file__).with_name("results") / "latest.json"
EXIT_CODES: Final[dict[Verdict, int]] = {"ok": 0, "missed": 1, "inconclusive": 2}

_COLUMNS: Final = (("server", 9), ("postgres", 10), ("redis", 7), ("load gen", 10), ("req/s", 9), ("p50 ms", 8), ("p99 ms", 8))
_HEAD: Final = "CPU microseconds a request".ljust(40) + "".join(name.rjust(width) for name, width in _COLUMNS)


@dataclass(slots=True)
class Report:
    """Everything one run found."""

    mode: str
    arms: Sequence[Arm]
    series: Mapping[str, Series]
    ratios: dict[str, float] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)
    spreads: dict[str, float] = field(default_factory=dict)
    missing: Sequence[str] = ()
    statements: Sequence[str] = ()

    @property
    def verdict(self) -> Verdict:
        """Of the whole run."""
        return judge(self.ratios, self.spreads)


def judge(ratios: Mapping[str, float], spreads: Mapping[str, float]) -> Verdict:
    """What these ratios, and floor spreads by name, amount to."""
    if any(spread > FLOOR_SPREAD_MAX for spread in spreads.values()) or abs(ratios.get("self", 1.0) - 1) > SELF_RATIO_MAX:
        return "inconclusive"
    missed = [goal for goal in GOALS if goal.name in ratios and not goal.met(ratios[goal.name], goal.must)]
    return "missed" if missed else "ok"


def write(report: Report, path: Path = RESULTS) -> None:
    """Write the result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "host": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}",
        "commit": _commit(),
        "mode": report.mode,
        "verdict": report.verdict,
        "ratios": {name: round(value, 3) for name, value in report.ratios.items()},
        "arms": {arm.name: _figures(report.series[arm.name]) for arm in report.arms},
        "extra": {name: round(value, 2) for name, value in report.extra.items()},
        "not_on": list(report.missing),
        "peers": {},
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def show(report: Report) -> str:
    """The report as text for a terminal."""
    lines = ["", _HEAD]
    for arm in report.arms:
        s = report.series[arm.name]
        lines.append(
            f"{arm.label:<40} {s.median('server_us'):>8.0f} {s.median('postgres_us'):>9.0f} {s.median('redis_us'):>6.0f} "
            f"{s.median('generator_us'):>9.0f} {s.median('per_s'):>8.0f} {s.median('p50_ms'):>7.1f} {s.median('p99_ms'):>7.1f}"
        )
    lines += ["", "".join(("ratio".ljust(40), "is".rjust(9), "must".rjust(10), "goal".rjust(7)))]
    for goal in GOALS:
        if goal.name in report.ratios:
            value = report.ratios[goal.name]
            word = "goal met" if goal.met(value, goal.goal) else "must met" if goal.met(value, goal.must) else "MISSED"
            sign = "≤" if goal.better == "lower" else "≥"
            lines.append(f"{goal.text:<40} {value:>8.2f} {sign + format(goal.must, 'g'):>9} {sign + format(goal.goal, 'g'):>6}  {word}")
    lines.append(f"{'a floor against itself':<40} {report.ratios.get('self', 1.0):>8.2f} {'1 ± 0.08':>9}")
    lines += [f"{name:<40} {value:>8.1f}" for name, value in report.extra.items()]
    if report.statements:
        lines += ["", "PostgreSQL's time by statement, whole saga:", *report.statements]
    lines += [f"NOT ON in this build: {name}" for name in report.missing]
    spread = ", ".join(f"{name} {value:.0%}" for name, value in report.spreads.items())
    lines += ["", f"floors vary by {spread} between rounds (limit {FLOOR_SPREAD_MAX:.0%})", f"verdict: {report.verdict.upper()}"]
    if report.verdict == "inconclusive":
        lines.append("the machine is too busy to measure on: end what else runs, then run it again")
    return "\n".join(lines)


def _figures(series: Series) -> dict[str, float]:
    names = ("server_us", "postgres_us", "redis_us", "generator_us", "per_s", "p50_ms", "p99_ms")
    return {name: round(series.median(name), 1) for name in names} | {"rounds": len(series.samples)}


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return done.stdout.strip() or "unknown"
