"""The table a person reads first: routes, then every check with its limit, then the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loadtests.recorder import Recorder
from loadtests.verdict import NAMES, Check, exit_code


def table(recorder: Recorder, checks: Sequence[Check], *, open_model: bool) -> str:
    """Everything, verdict last."""
    return "\n".join(["", *_routes(recorder, open_model=open_model), "", *lines(checks), "", verdict_line(checks)])


def _routes(recorder: Recorder, *, open_model: bool) -> list[str]:
    first, second = ("from intended", "from sending") if open_model else ("from sending", "")
    heads = f"{'milliseconds':<34}{'n':>7}{'failed':>8}   {first:<26}   {second}"
    under = f"{'':<34}{'':>7}{'':>8}   {'p50':>8}{'p95':>9}{'p99':>9}" + (f"   {'p50':>8}{'p99':>9}" if open_model else "")
    rows = []
    for name, route in recorder.routes.items():
        main = route.intended if open_model and route.intended.total else route.raw
        marks = "".join(f"{main.percentile(share):>{width}g}" for share, width in ((0.5, 8), (0.95, 9), (0.99, 9)))
        row = f"{name:<34}{route.raw.total:>7}{route.failed:>8}   {marks}"
        if open_model:
            row += f"   {route.raw.percentile(0.5):>8g}{route.raw.percentile(0.99):>9g}"
        rows.append(row)
        rows += [f"    {times} × {outcome}" for outcome, times in sorted(route.outcomes.items()) if outcome != "ok"]
        rows += [f"    e.g. {error}" for error in route.errors[:1]]
    return [heads.rstrip(), under, *rows]


def lines(checks: Iterable[Check]) -> list[str]:
    """One line a check."""
    return [line(check) for check in checks]


def line(check: Check) -> str:
    """`ok    objective  POST /v1/orders p99   41.2 ms   (≤ 300)`."""
    mark = "ok  " if check.holds else {"validity": "BAD ", "invariant": "LOST"}.get(check.kind, "MISS")
    sign = "≥" if check.at_least else "≤"
    note = f"   {check.note}" if check.note else ""
    return f"{mark}  {check.kind:<10} {check.name:<42} {check.measured:>9g} {check.unit:<15} ({sign} {check.limit:g}){note}"


def verdict_line(checks: Sequence[Check]) -> str:
    """`verdict: INVALID (exit 2): foreign CPU 0.41 of the machine, at most 0.15`."""
    code = exit_code(checks)
    decisive = {1: "objective", 2: "validity", 3: "invariant"}.get(code)
    why = "; ".join(reason(check) for check in checks if not check.holds and check.kind == decisive)
    return f"verdict: {NAMES[code]} (exit {code})" + (f": {why}" if why else "")


def reason(check: Check) -> str:
    """What did not hold, in words."""
    bound = "at least" if check.at_least else "at most"
    return f"{check.name} {check.measured:g} {check.unit}".rstrip() + f", {bound} {check.limit:g}" + (f" ({check.note})" if check.note else "")
