"""What must not grow while customers go on for ten minutes, nobody hurting the stack (`python -m tests.torture --calm --seconds 600`).

Compared are the means of the second and of the last quarter: what has settled by then stays. A run of ten minutes or more is
kept in docs/measured/soak.json; `tests/unit/test_torture_soak.py` shows that each bound can fail.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.dev.state import ROOT

MEASURED: Final = ROOT / "docs" / "measured" / "soak.json"
KEPT_FROM_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Bound:
    """The last quarter may be so many times the second, and `slack` more (small numbers jump)."""

    name: str
    what: str
    times: float
    slack: float


BOUNDS: Final = (
    Bound("memory_mib", "resident memory of all processes, MiB", 1.10, 10),
    Bound("sessions", "sessions at PostgreSQL", 1.0, 2),
    Bound("dead_tuples", "dead rows waiting for autovacuum", 2.0, 500),
    Bound("series", "series on all metrics pages", 1.02, 20),
    Bound("dead", "open dead letters", 1.0, 0),
)


def quarters(samples: Sequence[Mapping[str, float]], name: str) -> tuple[float, float]:
    """Means over the second and over the last quarter of a run: what has settled must not grow any more."""
    values = [sample[name] for sample in samples if name in sample]
    quarter = max(1, len(values) // 4)
    second, last = values[quarter : 2 * quarter] or values, values[-quarter:] or [0.0]
    return sum(second) / max(1, len(second)), sum(last) / len(last)


def slope_a_minute(samples: Sequence[Mapping[str, float]], name: str) -> float:
    """Least squares over the second half, in units a minute."""
    points = [(sample["at"] / 60, sample[name]) for sample in samples if name in sample]
    points = points[len(points) // 2 :]
    if len(points) < 2:
        return 0.0
    mean_at, mean = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((at - mean_at) ** 2 for at, _ in points)
    return sum((at - mean_at) * (value - mean) for at, value in points) / spread if spread else 0.0


def growth(samples: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """For each bound: second quarter, last quarter, what the last may be at most, slope over the second half."""
    found = {}
    for bound in BOUNDS:
        second, last = quarters(samples, bound.name)
        found[bound.name] = {
            "second": second, "last": last, "most": bound.times * second + bound.slack, "slope": slope_a_minute(samples, bound.name),
        }  # fmt: skip
    return found


def grown(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What broke its bound, in words."""
    return [
        f"{bound.what}: {f['second']:,.0f} in the second quarter, {f['last']:,.0f} in the last, allowed {f['most']:,.0f}"
        for bound in BOUNDS
        if (f := found[bound.name])["last"] > f["most"]
    ]


def keep(figures: Mapping[str, Any]) -> None:
    """The row the page is rendered from."""
    MEASURED.write_text(json.dumps([figures], indent=1) + "\n", encoding="utf-8")


def read(path: Path = MEASURED) -> list[dict[str, Any]]:
    """The soak that was kept last, if any."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
