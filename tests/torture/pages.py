"""docs/torture.md, docs/failure-matrix.md and docs/crash-points.md, rendered from docs/measured; `python -m tests.torture.pages` writes them.

tests/budgets/test_proof_pages.py renders them again and compares: no page can drift from what was measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from service.dev.state import ROOT
from tests.faults import matrix_page
from tests.torture import soak
from tests.torture.faults import kinds_for
from tests.torture.found import FOUND

_MEASURED: Final = ROOT / "docs" / "measured"


def pages() -> dict[str, str]:
    """Path below the repository → text."""
    return {"docs/torture.md": _torture(), "docs/failure-matrix.md": matrix_page.page(), "docs/crash-points.md": _crash_points()}


def measured(name: str) -> list[dict[str, Any]]:
    """What was measured last; nothing, if it was not."""
    path = _MEASURED / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _torture() -> str:
    text = Path(__file__).with_name("torture.template.md").read_text(encoding="utf-8")
    for name, part in {
        "summary": _summary(),
        "verdicts": _verdicts(),
        "mutants": _mutants(),
        "kinds": str(len(kinds_for("memory"))),
        "bugs": _bugs(),
        "soak": _soak(),
    }.items():
        text = text.replace(f"{{{name}}}", part)
    return text


def _verdicts() -> str:
    heads = (
        "broker",
        "s",
        "seed",
        "verdict",
        "faults",
        "kinds",
        "a minute",
        "overlap",
        "calls",
        "orders",
        "first ok",
        "quiet",
        "lost <",
        "slow",
        "load",
        "commit",
    )
    rows = [
        (
            r["broker"], f"{r['seconds']:g}", r["seed"], _word(r), r["faults"], r["kinds"],
            f"{r['faults_per_minute']:.0f}", f"{r['overlapping']:.0%}", f"{r['operations']:,}", f"{r['orders']:,}", _latest([r["first_ok_s"]]),
            _latest([r["drained_s"]]), _lost([r]), f"{r['slowness']:.1f} ×", f"{r['load_average']:.0f}", r["commit"],
        )
        for r in measured("torture")
    ]  # fmt: skip
    return table(heads, rows) if rows else "None kept yet."


def _summary() -> str:
    """One row a broker and length: how many held, and the worst of each bound."""
    heads = ("broker", "s", "runs", "held", "faults", "a minute ≥", "overlap ≥", "first ok ≤", "quiet ≤", "events judged", "lost <")
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in measured("torture"):
        groups.setdefault((row["broker"], row["seconds"]), []).append(row)
    lines = [
        (
            broker, f"{seconds:g}", len(rows), sum(row["verdict"] == "held" for row in rows), sum(row["faults"] for row in rows),
            f"{min(row['faults_per_minute'] for row in rows):.0f}", f"{min(row['overlapping'] for row in rows):.0%}",
            _latest(row["first_ok_s"] for row in rows), _latest(row["drained_s"] for row in rows),
            f"{sum(row['checked']['W1'] for row in rows):,}", _lost(rows),
        )
        for (broker, seconds), rows in groups.items()
    ]  # fmt: skip
    return table(heads, lines) if lines else ""


def _latest(times: Iterable[float]) -> str:
    """The latest of some moments; what never came is no number."""
    found = list(times)
    return "never" if any(math.isnan(at) for at in found) else f"{max(found):.1f} s"


def _lost(rows: Sequence[dict[str, Any]]) -> str:
    """The rule of three, where nothing was lost."""
    broken = any("W1" in str(row["reason"]) for row in rows)
    return "–" if broken else f"{300 / max(1, sum(row['checked']['W1'] for row in rows)):.2g} %"


def _word(row: dict[str, Any]) -> str:
    return str(row["verdict"]) if row["verdict"] == "held" else f"{row['verdict']}: {str(row['reason']).partition(': ')[2]}"


def _mutants() -> str:
    rows = [
        (f"`{f['name']}`", f["text"], f"seed {f['seed']}" if f["seed"] else f"**survived** {f['runs']} runs", f["first"] or "–")
        for f in measured("mutants")
    ]
    return table(("bug", "what is wrong", "killed by", "as"), rows) if rows else "None kept yet."


def _soak() -> str:
    for run in soak.read():
        rows = [
            (bound.what, f"{g['second']:,.0f}", f"{g['last']:,.0f}", f"{g['most']:,.0f}", f"{g['slope']:+.2f}")
            for bound in soak.BOUNDS
            if (g := run["growth"][bound.name])
        ]
        head = f"{run['seconds']:g} s, {run['operations']:,} calls, {run['orders']:,} orders, p50 {run['calm_p50_ms']:g} ms, p99 {run['calm_p99_ms']:g} ms; the machine {run['slowness']:.1f} × slower than a quiet one (commit {run['commit']}): {run['verdict']}."  # noqa: E501
        return head + "\n\n" + table(("of", "second quarter", "last quarter", "allowed", "slope a minute"), rows)
    return "None kept yet."


def _bugs() -> str:
    return "\n".join(f"- {line}" for line in FOUND)


def _crash_points() -> str:
    rows = [(f"`{r['point']}`", r["action"], r["story"], f"{r['fired_s']:.1f} s", f"{r['quiet_s']:.1f} s", r["word"]) for r in measured("sweep")]
    head = """# Crash points

Generated by `python -m tests.torture.pages` from `docs/measured/sweep.json`, which `python -m tests.faults` writes. Each named point of `service/foundation/failpoints.py`, crashed and hung once while a customer plays a story on real processes; then everything must come to its end, and the checker judges the whole database, topics, cache, logs and provider's book (`tests/faults/test_failpoint_sweep.py`). `inside-migration` has its own test: `tests/faults/test_failpoint_in_migration.py`.

"""  # noqa: E501
    heads = ("point", "action", "story", "reached after", "quiet after", "promises")
    return head + (table(heads, rows) if rows else "None kept yet.") + "\n"


def main() -> None:
    """Write them."""
    for path, text in pages().items():
        (ROOT / path).write_text(text, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
