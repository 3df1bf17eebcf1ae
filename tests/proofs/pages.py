"""docs/cache.md, docs/overload.md and their pictures, rendered from the measurements in docs/measured.

tests/budgets/test_proof_pages.py renders them again and compares: neither page nor picture can drift from what was measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.proofs import pictures

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "docs" / "measured"


def measured(name: str) -> Any:
    """What `python -m tests.proofs <name>` wrote last."""
    return json.loads((MEASURED / f"{name}.json").read_text(encoding="utf-8"))


def store(name: str, values: Any) -> None:
    """Keep a measurement."""
    MEASURED.mkdir(exist_ok=True)
    (MEASURED / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def pages() -> dict[str, str]:
    """Path below the repository → text, of everything that is generated here."""
    return {
        "docs/cache.md": _cache(),
        "docs/overload.md": _overload(measured("overload")),
        "docs/images/cache-race.svg": pictures.race(),
        "docs/images/stampede.svg": pictures.stampede_bars(measured("stampede")),
        "docs/images/overload.svg": pictures.overload_curve(measured("overload")),
    }


def write_pages() -> None:
    """Render them all."""
    for path, text in pages().items():
        (ROOT / path).write_text(text, encoding="utf-8")


def _template(name: str) -> str:
    return Path(__file__).with_name(f"{name}.template.md").read_text(encoding="utf-8")


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _thousands(number: int) -> str:
    return f"{number:,}"


def _cache() -> str:
    race, stampede, faults, away = measured("race"), measured("stampede"), measured("faults")["redis"], measured("faults")["postgres"]
    names = {"guarded": "guarded by version (ours)", "deleting": "deleting"}
    return _template("cache").format(
        race=_table(
            ("cache", "processes", "updates", "not announced", "reads", "hits", "backwards", "keys", "**stale for ever**"),
            [
                (
                    names[row["arm"]],
                    row["processes"],
                    *(_thousands(row[name]) for name in ("updates", "silent", "reads", "hits", "backwards", "keys")),
                    f"**{row['stale']}**",
                )
                for row in race
            ],
        ),
        stampede=_table(
            ("method", "loads", "Redis commands a caller", "median wait", "slowest wait"),
            [(row["arm"], row["loads"], row["commands"], f"{row['median_wait']} ×", f"{row['slowest_wait']} ×") for row in stampede],
        ),
        faults=_table(
            ("fault", "reads", "writes", "wrong bodies", "5xx", "behind", "answered from"),
            [
                (
                    row["fault"],
                    _thousands(row["reads"]),
                    _thousands(row["writes"]),
                    row["wrong"],
                    row["server_errors"],
                    row["behind"],
                    _from(row["outcomes"]),
                )
                for row in faults
            ],
        ),
        away=(
            f"{away['served']} served with the right body, the oldest with `Age: {away['oldest_age_s']}`; "
            f"{away['refused_too_old']} of more than 300 s and {away['refused_not_cached']} not cached refused with 503; {away['other']} others."
        ),
        lines=measured("lines"),
    )


def _from(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(outcomes.items(), key=lambda item: -item[1]) if count > 0)


def _overload(points: Sequence[Mapping[str, Any]]) -> str:
    by = {(point["arm"], point["times"]): point for point in points}
    rows = []
    for times in sorted({times for _, times in by}):
        cells = [(f"{arm['goodput']:.0%}", f"{arm['sales_kept']:.1%}") for arm in (by["with", times], by["without", times])]
        rows.append((f"{times:g} ×", *cells[0], *cells[1]))
    heads = ("offered", "goodput ÷ capacity, with", "sales made, with", "goodput ÷ capacity, without", "sales made, without")
    capacities = [point["capacity"] for point in points]
    return _template("overload").format(lowest=min(capacities), highest=max(capacities), table=_table(heads, rows))
