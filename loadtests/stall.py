"""The experiment behind the open model: one server that stops for 1.5 s every 5 s, asked by both kinds of clients.

The closed clients wait while it stands still and then go on: of their many requests a few were slow, and the 99th
percentile does not see them. Arrivals do not wait: everything that was due in those 1.5 s waited for its end.
Test: `tests/load/test_a_stall_is_seen_by_open_arrivals_only.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from loadtests import verdict
from loadtests.cut import Cut
from loadtests.plan import Plan
from loadtests.run import Run, measure
from loadtests.target import Target, Wanted, open_target

STOPPED_S: Final = 1.5
EVERY_S: Final = 5.0
_USERS: Final = 2
_RATE: Final = 40.0


def stall_of(pids: Sequence[int]) -> Cut:
    """The server stands still for 1.5 s every 5 s, from the first second on."""
    return Cut(pids, after_s=1.0, for_s=STOPPED_S, every_s=EVERY_S)


def compare_models(target: Target, pids: Sequence[int], folder: Path, *, seconds: float) -> tuple[Run, Run]:
    """The same stalls, closed and open."""
    closed = Plan("stall-closed", model="closed", users=_USERS, think=False, mix="look", seconds=seconds)
    opened = Plan("stall-open", rate=_RATE, mix="look", seconds=seconds)
    runs = [measure(plan, target, folder / plan.name, stall=stall_of(pids), ask=False) for plan in (closed, opened)]
    return runs[0], runs[1]


def table(closed: Run, opened: Run) -> str:
    """Both, side by side."""
    lines = [f"{'the same server, stopped 1.5 s every 5 s':<44}{'requests':>9}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'max ms':>9}"]
    named = (("closed: 2 users, each waits for its answer", closed), (f"open: {_RATE:g} arrivals/s, from when they were due", opened))
    for name, run in named:
        seen = run.recorder.all_routes(intended=run.plan.open_model)
        marks = "".join(f"{seen.percentile(share):>9g}" for share in (0.5, 0.95, 0.99))
        lines.append(f"{name:<44}{run.recorder.requests:>9}{marks}{seen.highest:>9g}")
    return "\n".join(lines)


def show(wanted: Wanted, folder: Path, *, seconds: float) -> int:
    """On a stack; 1 when the open run did not see the stalls, which cannot be."""
    with open_target(wanted) as target:
        closed, opened = compare_models(target, target.pids("api"), folder, seconds=seconds)
    print("\n" + table(closed, opened))
    return verdict.OK if opened.latency(0.99) >= 1_000 else verdict.MISSED
