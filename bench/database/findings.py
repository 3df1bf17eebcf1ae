"""What an experiment leaves: statements with plans, a witness, ratios with their spread, pictures. Plain data, kept as JSON.

The page is drawn from these files alone (`page.py`), so a text edit needs no new measurement.
Test: tests/budgets/test_database_page.py.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from service.dev.state import ROOT

if TYPE_CHECKING:
    from bench.database.lab import Lab

MEASURED: Final = ROOT / "docs" / "measured" / "database"


@dataclass(frozen=True, slots=True)
class Shown:
    """A statement as it was run, and its EXPLAIN (ANALYZE, BUFFERS); no plan where none exists (BEGIN, several statements)."""

    title: str
    sql: str
    plan: str = ""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long, or as many, as `against`: median of the rounds, with their first and third quartile."""

    name: str
    median: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are text or numbers; numbers are formatted by the page."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars, one a name; those of `other` have another colour, and `other_is` says which they are."""

    title: str
    unit: str
    bars: Sequence[tuple[str, float]]
    log: bool = False
    other: Sequence[str] = ()
    other_is: str = ""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines over a common axis; `shaded`: (from, to, name)."""

    title: str
    x: str
    y: str
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]
    log_x: bool = False
    log_y: bool = False
    dots: bool = False
    shaded: Sequence[tuple[float, float, str]] = ()


@dataclass(slots=True)
class Finding:
    """All that one experiment says. `facts` are the numbers its text mentions."""

    witness: list[Table] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    bars: list[Bars] = field(default_factory=list)
    lines: list[Lines] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chapter:
    """One experiment. `reading` says what the figures mean and may name `facts` in braces."""

    name: str
    title: str
    question: str
    reading: str
    other: str
    run: Callable[[Lab], Awaitable[Finding]]


def ratio(name: str, taken: Sequence[float], against: Sequence[float]) -> Ratio:
    """`taken` ÷ `against`, round by round: what disturbs a round disturbs both."""
    quotients = [a / b for a, b in zip(taken, against, strict=True)]
    low, median, high = statistics.quantiles(quotients, n=4, method="inclusive")
    return Ratio(name, round(median, 2), round(low, 2), round(high, 2), len(quotients))


def keep(name: str, finding: Finding) -> None:
    """Write what was found."""
    MEASURED.mkdir(parents=True, exist_ok=True)
    _path(name).write_text(json.dumps(asdict(finding), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def recall(name: str) -> Finding:
    """Read what was found. Raises `FileNotFoundError` where it never was."""
    raw = json.loads(_path(name).read_text(encoding="utf-8"))
    return Finding(
        witness=[Table(**row) for row in raw["witness"]],
        shown=[Shown(**row) for row in raw["shown"]],
        ratios=[Ratio(**row) for row in raw["ratios"]],
        bars=[Bars(**row) for row in raw["bars"]],
        lines=[Lines(**row) for row in raw["lines"]],
        facts=raw["facts"],
    )


def measured(name: str) -> bool:
    """Whether there is something to recall."""
    return _path(name).exists()


def _path(name: str) -> Path:
    return MEASURED / f"{name}.json"
