"""Horizontal scale on one machine: 1, 2, 4 API processes by one socket and behind haproxy; 1, 2, 4 workers a group.

On two cores this shows what is shared and what a process more costs, not a speed-up: the cores are the limit. The
table says so by CPU, and its last lines what one process carries (docs/capacity.md goes on from there). Each stack is
warmed by a run that does not count; a step with foreign CPU is marked, never told as a number of the service.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from loadtests import verdict
from loadtests.balanced import behind_haproxy
from loadtests.fit import fit_price
from loadtests.plan import Plan
from loadtests.quiet import disturbances, undisturbed
from loadtests.report import summary
from loadtests.report.terminal import reason
from loadtests.run import Run, judge, measure
from loadtests.target import Target, Wanted, own_stack

COUNTS: Final = (1, 2, 4)
_WARM_S: Final = 8.0
_SHARE: Final = 0.6  # of its core that a process is to use: the rest is for a peak within the second, and for a lost one
_BALANCER_OFFSET: Final = 420


@dataclass(frozen=True, slots=True)
class Step:
    """One arrangement and what it did."""

    name: str
    processes: int
    run: Run

    def cores(self) -> dict[str, float]:
        """Mean over the run, by role."""
        return {role: _mean(self.run, f"cpu_{role}") for role in ("api", "postgres", "worker", "relay", "kafka", "redis")}

    def facts(self) -> dict[str, object]:
        """For `scale.json`."""
        return {"name": self.name, "processes": self.processes, "served": self.run.recorder.dispatch.served, "cores": self.cores()}

    def row(self, seconds: float) -> str:
        served, truth = self.run.recorder.dispatch.served / seconds, self.run.truth
        mean = self.cores()
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
            steps.append(_measured(f"{count} API, one socket", count, plan, target, folder))
    for count in counts:
        with own_stack(wanted) as target:
            port = int(os.environ.get("HTTP_PORT", "8000")) + _BALANCER_OFFSET
            with behind_haproxy(target, count, first_port=port) as balanced:
                steps.append(_measured(f"{count} API, haproxy", count, plan, balanced.target, folder))
    for count in counts[1:]:
        with own_stack(replace(wanted, workers=count)) as target:
            steps.append(_measured(f"{count} workers a group", count, plan, target, folder))
    heads = f"{'offered ' + format(rate, 'g') + '/s':<34}{'served/s':>9}{'p99 ms':>9}{'paid p99':>8}{'API':>7}{'PG':>7}{'worker':>7}{'broken':>8}"
    table = "\n".join([heads, *(step.row(seconds) for step in steps)])
    table += "\n" + "\n".join(_priced(steps, len(counts), rate))
    machine = summary.host()
    table += f"\non {machine['cpu']}, {machine['cores']} cores, commit {summary.commit()}"
    print("\n" + table)
    (folder / "scale.txt").write_text(table + "\n")
    (folder / "scale.json").write_text(json.dumps([step.facts() for step in steps], indent=2) + "\n")
    return max((verdict.BROKEN for step in steps if step.run.code == verdict.BROKEN), default=verdict.OK)


def _priced(steps: Sequence[Step], counts: int, rate: float) -> list[str]:
    """What an order and a process cost, by the line through the arrangements that differ in that role only; disturbed ones tell nothing."""
    lines = []
    for role, all_rows in (("api", steps[:counts]), ("worker", [steps[0], *steps[2 * counts :]])):
        rows = [step for step in all_rows if not disturbances(step.run)]
        if len(rows) < 2:
            continue
        price = fit_price([(step.processes, step.cores()[role]) for step in rows], rate)
        lines.append(
            f"{role}: {price.order_ms:.1f} ms of CPU an order at this rate, {price.process:.3f} cores a process before the first; "
            f"at {_SHARE:.0%} of a core one carries {price.carries(_SHARE):.0f} orders/s"
        )
    return lines


def _measured(name: str, processes: int, plan: Plan, target: Target, folder: Path) -> Step:
    at = folder / name.replace(" ", "-").replace(",", "")
    print(f"warming: {name}", flush=True)
    measure(replace(plan, seconds=_WARM_S), target, at, say=lambda _: None)

    def step() -> Run:
        run = measure(plan, target, at)
        judge(run, verdict.load_objectives())
        return run

    return Step(name, processes, undisturbed(step))


def _mean(run: Run, name: str) -> float:
    seen = [sample.get(name) for sample in run.during]
    return sum(seen) / len(seen) if seen else 0.0
