"""Horizontal scale on one machine: 1, 2, 4 API processes by one socket and behind haproxy; 1, 2, 4 workers a group.

On two cores this shows what is shared and what a process more costs, not a speed-up: the cores are the limit. The
table says so by CPU; a step with foreign CPU is marked, never told as a number of the service.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from loadtests import verdict
from loadtests.balanced import behind_haproxy
from loadtests.plan import Plan
from loadtests.quiet import disturbances, undisturbed
from loadtests.report import summary
from loadtests.report.terminal import reason
from loadtests.run import Run, judge, measure
from loadtests.target import Target, Wanted, own_stack

COUNTS: Final = (1, 2, 4)
_BALANCER_OFFSET: Final = 420


@dataclass(frozen=True, slots=True)
class Step:
    """One arrangement and what it did."""

    name: str
    run: Run

    def row(self, seconds: float) -> str:
        served, truth = self.run.recorder.dispatch.served / seconds, self.run.truth
        mean = {role: _mean(self.run, f"cpu_{role}") for role in ("api", "postgres", "worker")}
        broken = sum(not check.holds for check in self.run.checks if check.kind == "invariant")
        saga = f"{truth.placed_to_paid_p99_s:8.2f}" if truth and truth.paid else f"{'–':>8}"
        mark = "".join(f"  (not valid: {reason(check)})" for check in disturbances(self.run)[:1])
        return (
            f"{self.name:<34}{served:>9.1f}{self.run.latency(0.99):>9g}{saga}{mean['api']:>7.2f}{mean['postgres']:>7.2f}"
            f"{mean['worker']:>7.2f}{broken:>8}{mark}"
        )


def show(wanted: Wanted, folder: Path, *, rate: float, seconds: float, counts: tuple[int, ...] = COUNTS) -> int:
    """The table; 3 when an invariant broke."""
    steps: list[Step] = []
    plan = Plan("scale", rate=rate, seconds=seconds, mix="buy", pool=1_000)
    for count in counts:
        with own_stack(replace(wanted, api=count)) as target:
            steps.append(_measured(f"{count} API, one socket", plan, target, folder))
    for count in counts:
        with own_stack(wanted) as target:
            port = int(os.environ.get("HTTP_PORT", "8000")) + _BALANCER_OFFSET
            with behind_haproxy(target, count, first_port=port) as balanced:
                steps.append(_measured(f"{count} API, haproxy", plan, balanced.target, folder))
    for count in counts[1:]:
        with own_stack(replace(wanted, workers=count)) as target:
            steps.append(_measured(f"{count} workers a group", plan, target, folder))
    heads = f"{'offered ' + format(rate, 'g') + '/s':<34}{'served/s':>9}{'p99 ms':>9}{'paid p99':>8}{'API':>7}{'PG':>7}{'worker':>7}{'broken':>8}"
    table = "\n".join([heads, *(step.row(seconds) for step in steps)])
    machine = summary.host()
    table += f"\non {machine['cpu']}, {machine['cores']} cores, commit {summary.commit()}"
    print("\n" + table)
    (folder / "scale.txt").write_text(table + "\n")
    (folder / "scale.json").write_text(json.dumps([{"name": step.name, "served": step.run.recorder.dispatch.served} for step in steps]))
    return max((verdict.BROKEN for step in steps if step.run.code == verdict.BROKEN), default=verdict.OK)


def _measured(name: str, plan: Plan, target: Target, folder: Path) -> Step:
    def step() -> Run:
        run = measure(plan, target, folder / name.replace(" ", "-").replace(",", ""))
        judge(run, verdict.load_objectives())
        return run

    return Step(name, undisturbed(step))


def _mean(run: Run, name: str) -> float:
    seen = [sample.get(name) for sample in run.during]
    return sum(seen) / len(seen) if seen else 0.0
