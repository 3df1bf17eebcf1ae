"""One run: start the generator, watch the service, cut what is to be cut, read the truth back, judge.

The generator is a process of its own (locust patches what it imports); this one stays unpatched and does the
watching, so that a starved generator is seen by somebody who is not. Answers a `Run`; `judge` turns it into checks.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from loadtests import saturation, verdict
from loadtests.cut import Cut
from loadtests.plan import Plan
from loadtests.readback import Truth, read_back
from loadtests.recorder import Recorder
from loadtests.target import Target, TargetError
from loadtests.verdict import Check
from loadtests.watch import Sample, Watcher
from service.dev.children import die_with_parent

ROOT: Final = Path(__file__).resolve().parents[1]
_START_S: Final = 240.0
_SLACK_S: Final = 60.0


class RunError(Exception):
    """The generator could not do its work: what it said, and where the rest is."""


@dataclass
class Run:
    """Everything that is known about one run."""

    plan: Plan
    recorder: Recorder
    samples: list[Sample] = field(default_factory=list)
    truth: Truth | None = None
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    checks: list[Check] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> int:
        return verdict.exit_code(self.checks)

    @property
    def carried(self) -> float | None:
        """Orders a second that came to their end, from the first arrival until nothing was left to do; None where it was not asked.

        What is answered faster than this grows a backlog, and is no rate to go on with.
        """
        return self.truth.placed / (self.plan.seconds + self.truth.drain_s) if self.truth and self.truth.drained else None

    @property
    def saturated(self) -> saturation.Saturated | None:
        return saturation.first_to_saturate(self.during, cores=os.cpu_count() or 1)

    @property
    def during(self) -> list[Sample]:
        """The samples of the run itself, without start and drain."""
        return [sample for sample in self.samples if 0 <= sample.at_s <= self.plan.seconds]

    @property
    def foreign_cpu(self) -> float | None:
        """Mean over the run's own seconds; None where it could not be seen."""
        seen = [s.values["cpu_foreign"] for s in self.during if "cpu_foreign" in s.values]
        return sum(seen) / len(seen) if seen else None

    def latency(self, share: float) -> float:
        """Over all routes, from the intended moment in an open run."""
        return self.recorder.all_routes(intended=self.plan.open_model).percentile(share)


def measure(plan: Plan, target: Target, out: Path, *, say: Callable[[str], None] = print, stall: Cut | None = None, ask: bool = True) -> Run:
    """Carry the plan out on the target; files go to `out`.

    `stall`: what stops meanwhile, besides the plan's own cut; `ask` False: what the database says is not of interest.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "generator.json").unlink(missing_ok=True)
    began = datetime.now(UTC)
    say(f"{plan.name}: {_describe(plan)} against {target.api}" + (f", profile {target.profile}" if target.profile else ""))
    generator = subprocess.Popen(
        [*_command(plan, target), "--out", str(out)],
        cwd=ROOT,
        env=_environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=(out / "generator.log").open("w"),
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - it imports nothing; a driver that is killed leaves nobody asking
    )
    watcher: Watcher | None = None
    try:
        with ExitStack() as stack:
            if target.home is not None:
                watcher = stack.enter_context(Watcher(target.home, generator=[generator.pid], beside=target.beside))
            cut = stack.enter_context(stall or _cut(plan, target))
            begun_at = _follow(generator, cut, plan, watcher, say)
    finally:
        _end(generator)
    if generator.returncode or not (out / "generator.json").exists():
        raise RunError(
            f"the generator ended with exit {generator.returncode} and no result: {_last_line(out / 'generator.log')}; see {out}/generator.log"
        )
    run = Run(plan, Recorder.from_json(json.loads((out / "generator.json").read_text())), began=began)
    run.extra["cuts"] = cut.times
    if watcher is not None:
        run.samples = [Sample(round(s.at_s + watcher.begun_at - begun_at, 2), s.values, s.rows_read) for s in watcher.samples]
    if target.home is not None and ask:
        run.truth = asyncio.run(read_back(target.home, since=began, ended_at=min(time.monotonic(), begun_at + plan.seconds), say=say))
    return run


def judge(run: Run, slo: Mapping[str, Any]) -> list[Check]:
    """Every line of the verdict; also kept in `run.checks`."""
    plan = run.plan
    checks = verdict.validity(run.recorder, slo, foreign_cpu=run.foreign_cpu, open_model=plan.open_model)
    if plan.cut or plan.shape in {"stress", "spike"}:
        # The objectives of such a run are about what comes after; latencies inside are what it is made to show.
        checks += _around_the_event(run, slo)
    else:
        checks += verdict.objectives(run.recorder, slo, open_model=plan.open_model, count_errors=plan.count_errors)
    if plan.name == "soak":
        checks += _slopes(run, slo)
    if run.truth is not None:
        checks += verdict.saga(run.truth.to_json(), slo) + verdict.invariants(run.truth.violations, run.truth.asked)
    run.checks = checks
    return checks


def _around_the_event(run: Run, slo: Mapping[str, Any]) -> list[Check]:
    begin_s, end_s = run.plan.course.event_s
    limit_ms = max(route["p99_ms"] for route in slo["routes"].values())
    if run.plan.shape == "spike":
        recovered = verdict.recovery_s(run.recorder, end_s, limit_ms)
        run.extra["recovery_s"] = recovered
        return [Check("objective", "recovery after the spike", recovered, slo["spike"]["recovery_s"], "s")]
    if run.plan.cut:
        # A run whose dependency never went away shows nothing.
        drained = _backlog_gone_s(run, begin_s, end_s)
        run.extra["drained_after_heal_s"] = drained
        checks = [Check("validity", f"times {run.plan.cut} was away", run.extra.get("cuts", 0), 1, at_least=True)]
        return [*checks, Check("objective", "backlog gone after the heal", drained, slo["outage"]["drain_s"], "s")]
    return []


def _backlog_gone_s(run: Run, begin_s: float, end_s: float) -> float:
    """Seconds from the heal until outbox and lag are no larger than before the cut, for good while arrivals went on."""
    backlog = [(s.at_s, s.get("outbox_rows") + s.get("lag")) for s in run.samples]
    calm = max((value for at, value in backlog if at < begin_s), default=0.0)
    high = [at for at, value in backlog if at >= end_s and value > 2 * calm + run.plan.rate]
    if high and high[-1] == max(at for at, _ in backlog):  # it outlasted the arrivals
        return round(run.plan.seconds - end_s + (run.truth.drain_s if run.truth else 0.0), 1)
    return round(max(0.0, max(high, default=end_s) - end_s), 1)


def _slopes(run: Run, slo: Mapping[str, Any]) -> list[Check]:
    half = [s for s in run.samples if s.at_s >= run.plan.seconds / 2]
    named = {"api_memory_mib": "MiB", "connections": "", "lag": "records"}
    keys = {"api_memory_mib": "api_memory_mib", "connections": "pg_connections", "lag": "lag"}
    run.extra["dead_rows"] = half[-1].get("pg_dead_rows") if half else 0
    return [
        Check("objective", f"slope of {name} a minute",
              round(verdict.slope_a_minute((s.at_s, s.get(keys[name])) for s in half), 3), slo["soak"][name], unit)
        for name, unit in named.items()
    ]  # fmt: skip


def _command(plan: Plan, target: Target) -> list[str]:
    words = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"), "--headless", "--only-summary", "--loglevel", "ERROR"]
    words += ["--exit-code-on-error", "0", "--driven", "--host", target.api, *plan.arguments()]
    words += ["--home", str(target.home)] if target.home else ["--tokens", str(target.tokens)]
    return words + (["--i-own"] if target.i_own else [])


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))), "PYTHONUNBUFFERED": "1"}


def _cut(plan: Plan, target: Target) -> Cut:
    begin_s, end_s = plan.course.event_s
    if not plan.cut:
        return Cut([], after_s=plan.seconds * 10, for_s=0)
    if target.home is None:
        raise TargetError("a dependency can only be cut on a stack of this machine: leave --host out")
    return Cut(target.pids(plan.cut), after_s=begin_s, for_s=end_s - begin_s)


def _follow(generator: subprocess.Popen[str], cut: Cut, plan: Plan, watcher: Watcher | None, say: Callable[[str], None]) -> float:
    """Pass its lines on until it ends; answers when it began. Kills a generator that does not end."""
    assert generator.stdout is not None
    begun_at = 0.0
    guard = threading.Timer(_START_S + plan.seconds + _SLACK_S, lambda: _end(generator))
    guard.start()
    try:
        for line in generator.stdout:
            if line.startswith("began "):
                if not begun_at:  # each generator process says so; the clock of the cut runs from the first
                    begun_at = float(line.split()[1])
                    cut.start()
            elif line.startswith("  "):
                say(line.rstrip() + (watcher.glance() if watcher else ""))
        generator.wait()
    finally:
        guard.cancel()
    return begun_at or time.monotonic()


def _end(generator: subprocess.Popen[str]) -> None:
    """With all its processes."""
    if generator.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(generator.pid, signal.SIGKILL)
        generator.wait()


def _describe(plan: Plan) -> str:
    if not plan.open_model:
        return f"closed, {plan.users} users{'' if plan.think else ' without think time'}, {plan.seconds:g} s, mix {plan.mix}"
    gaps = "random" if plan.poisson else "even"
    return f"open, {plan.shape} to {plan.rate:g}/s with {gaps} gaps, {plan.seconds:g} s, mix {plan.mix}" + (
        f", {plan.cut} away for 5 s" if plan.cut else ""
    )


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if line.startswith("plumbline: ")), (lines or ["(it said nothing)"])[-1])
