"""One run: start, warm, torment, heal, wait until all is quiet, judge. What it leaves is a folder with everything in it.

Exit 0: every promise held · 1: one is broken · 2: the run proves nothing (no operations, a kind of fault that was not made or that
nobody felt, too few of them, a promise that was not exercised, or a victim that did not start).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from service.dev.state import ROOT
from tests.faults.checker.collect import collect
from tests.faults.checker.evidence import Evidence
from tests.faults.checker.findings import Verdict
from tests.faults.checker.report import exit_code, judge_all, render
from tests.faults.shopper import History
from tests.faults.sweep import World, under_way
from tests.torture import timeline
from tests.torture.faults import kinds_for
from tests.torture.load import Crowd, answers_now, people
from tests.torture.nemesis import Nemesis, Step, plan
from tests.torture.rig import POLICIES, BrokerName, Rig, running_rig
from tests.torture.soak import grown, growth
from tests.torture.watch import Watch, resources

WARM_S: Final = 6.0
CALM_S: Final = 4.0  # customers go on for so long after the first success
QUIET_S: Final = 60.0
PER_MINUTE: Final = 30
OVERLAP: Final = 0.4
BY_THE_CLOCK: Final = frozenset({"X3", "X4"})  # bounds in seconds or in growth: worth nothing on a machine that has no time
TOO_SLOW: Final = 2.0
REQUIRED: Final = (
    "I1",
    "I2",
    "I3",
    "I4",
    "O1",
    "O2",
    "O3",
    "O4",
    "W1",
    "W2",
    "W5",
    "C1",
    "C3",
    "L1",
    "G1",
    "G2",
    "G3",
    "G4",
    "G5",
    "G6",
    "X1",
    "X2",
    "X3",
    "X4",
    "X5",
)
_TELL_S: Final = 5.0
_SETTLE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What to run."""

    seed: int
    seconds: float
    kafka: BrokerName
    folder: Path
    source: Path | None = None  # a copy of the code with a bug in it
    require: tuple[str, ...] = REQUIRED
    workers: int = 2
    calm: bool = False  # a soak: no faults at all


@dataclass(slots=True)
class Outcome:
    """What became of it."""

    code: int = 2
    reason: str = ""
    lines: list[str] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


async def run(asked: Asked) -> Outcome:
    """The whole of it; artefacts are in `asked.folder` whatever happens."""
    asked.folder.mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="plumbline-torture-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        try:
            tell(f"starting a stack ({asked.kafka} broker), every dependency behind a proxy …")
            async with running_rig(home, kafka=asked.kafka, seed=asked.seed, source=asked.source, workers=asked.workers) as rig:
                evidence, nemesis, watch = await _torture(rig, asked)
                _judge(asked, evidence, nemesis, watch, outcome)
        finally:
            _keep(home, asked.folder)
    return outcome


async def _torture(rig: Rig, asked: Asked) -> tuple[Evidence, Nemesis, Watch]:
    history = History(asked.folder / "history.jsonl")
    crowd, watch = Crowd(rig, history, asked.seed), Watch(rig)
    nemesis = Nemesis(rig, asked.seed, asked.folder / "faults.jsonl")
    watching = asyncio.create_task(watch.run())
    living = [asyncio.create_task(person.live()) for person in people(crowd)]
    telling = asyncio.create_task(_tell(crowd, nemesis, watch))
    phases = {"begin": time.time()}
    try:
        tell(f"warm for {WARM_S:g} s: {len(living)} customers and staff")
        await asyncio.sleep(WARM_S)
        found = await resources(rig, "warm")
        phases["chaos"] = time.time()
        steps = planned(asked)
        tell(f"chaos for {asked.seconds:g} s: {len(steps)} faults, {len({step.kind.name for step in steps})} kinds")
        await (asyncio.sleep(asked.seconds) if asked.calm else nemesis.torment(steps))
        phases["healed"] = max((done.end for done in nemesis.done), default=time.time())
        await _heal(rig, crowd, phases)
        await asyncio.sleep(CALM_S)
        crowd.stop.set()
        await asyncio.wait_for(asyncio.gather(*living), QUIET_S)
        await nemesis.settled()
        evidence = await _quiet(rig, asked, nemesis, watch, phases=phases, warm=found)
    finally:
        for task in (*living, telling, watching):
            task.cancel()
        await asyncio.gather(*living, telling, watching, return_exceptions=True)
    evidence.phases |= {"begin": phases["begin"], "chaos": phases["chaos"], "undecided": float(crowd.undecided)}
    return evidence, nemesis, watch


async def _heal(rig: Rig, crowd: Crowd, phases: dict[str, float]) -> None:
    """Note the first success after the last heal, and the moment every process is ready."""
    tell("healed; waiting for the first success and for readiness")
    deadline = time.monotonic() + QUIET_S
    while not {"first_ok", "ready"} <= phases.keys() and time.monotonic() < deadline:
        if "first_ok" not in phases and (crowd.last_ok > phases["healed"] or await answers_now(rig)):
            phases["first_ok"] = time.time()
        if "ready" not in phases and await rig.is_ready():
            phases["ready"] = time.time()
        await asyncio.sleep(0.05)


async def _quiet(rig: Rig, asked: Asked, nemesis: Nemesis, watch: Watch, *, phases: dict[str, float], warm: list[dict[str, Any]]) -> Evidence:
    """Wait until nothing is under way, then gather; the cache group leaves no row to wait for, so C1 is given a moment."""
    world = World(rig.home, rig.stack, History(asked.folder / "history.jsonl"))
    deadline, told = time.monotonic() + QUIET_S, 0.0
    left = -1
    while time.monotonic() < deadline:
        with suppress(OSError, TimeoutError):
            left = await under_way(world)
            if left == 0:
                phases["drained"] = time.time()
                break
        if time.monotonic() > told + _TELL_S:
            told = time.monotonic()
            tell(f"quiescing: {left} things are under way")
        await asyncio.sleep(0.2)
    deadline = time.monotonic() + _SETTLE_S
    while True:
        evidence = await collect(rig.stack, rig.home, history=asked.folder / "history.jsonl", faults=None)
        evidence.faults, evidence.policies = nemesis.faults() + watch.unheard, [dict(policy) for policy in POLICIES]
        evidence.resources = warm + await resources(rig, "quiet")
        evidence.phases = dict(phases)
        passing = {name for name, verdict in judge_all(evidence).items() if verdict.violations} & {"C1", "X3"}
        if not passing or time.monotonic() > deadline:
            return evidence
        await asyncio.sleep(1)


# -- the verdict


def _judge(asked: Asked, evidence: Evidence, nemesis: Nemesis, watch: Watch, outcome: Outcome) -> None:
    tell(f"judging {len(evidence.operations):,} operations, {len(evidence.orders):,} orders, {len(evidence.records):,} records")
    outcome.verdicts = judge_all(evidence)
    outcome.lines = list(render(evidence, outcome.verdicts))
    outcome.figures = figures(asked, evidence, nemesis) | {
        "slowness": round(sum(watch.slow) / max(1, len(watch.slow)), 2),
        "growth": growth(watch.samples),
    }
    outcome.code, outcome.reason = exit_code(evidence, outcome.verdicts, asked.require)
    broken = {name for name, verdict in outcome.verdicts.items() if verdict.violations}
    if outcome.code == 1 and broken <= BY_THE_CLOCK and outcome.figures["slowness"] > TOO_SLOW:
        outcome.code = 2
        times, names = outcome.figures["slowness"], ", ".join(sorted(broken))
        outcome.reason = f"INCONCLUSIVE: the machine was {times:.1f} times slower than a quiet one, too busy for {names}"
    if asked.calm and outcome.code == 0 and (more := grown(outcome.figures["growth"])):
        outcome.code, outcome.reason = 1, f"GROWN: {'; '.join(more)}"
    if outcome.code == 0 and (weak := _weaknesses(asked, evidence, nemesis, outcome.figures)):
        outcome.code, outcome.reason = 2, f"INCONCLUSIVE: {'; '.join(weak)}"
    (asked.folder / "evidence.json").write_text(json.dumps(evidence.to_json(), default=str))
    (asked.folder / "verdict.json").write_text(
        json.dumps({"code": outcome.code, "reason": outcome.reason, "figures": outcome.figures, "lines": outcome.lines}, indent=1)
    )
    (asked.folder / "timeline.html").write_text(timeline.page(outcome, evidence, nemesis.done, watch.samples), encoding="utf-8")


def _weaknesses(asked: Asked, evidence: Evidence, nemesis: Nemesis, found: dict[str, Any]) -> list[str]:
    """Why a run without a violation still proves nothing."""
    weak: list[str] = []
    if asked.calm:
        return weak
    planned_kinds = {step.kind.name for step in planned(asked)}
    if missing := planned_kinds - {done.kind for done in nemesis.done}:
        weak.append(f"never made: {', '.join(sorted(missing))}")
    if unfelt := nemesis.unfelt():
        weak.append(f"nobody felt: {', '.join(sorted(unfelt))}")
    if found["faults_per_minute"] < PER_MINUTE:
        weak.append(f"{found['faults_per_minute']:.0f} faults a minute, {PER_MINUTE} are wanted")
    if found["overlapping"] < OVERLAP:
        weak.append(f"{found['overlapping']:.0%} of the faults overlapped, {OVERLAP:.0%} are wanted")
    if evidence.phases["undecided"]:
        weak.append(f"{evidence.phases['undecided']:.0f} calls never got a definite answer")
    return weak


def planned(asked: Asked) -> list[Step]:
    """The steps the seed asks for; none in a soak."""
    if asked.calm:
        return []
    return plan(asked.seed, asked.seconds, kinds_for(asked.kafka))


def figures(asked: Asked, evidence: Evidence, nemesis: Nemesis) -> dict[str, Any]:
    """What the run was: for the verdict line and for the tables in docs/."""
    phases, ops = evidence.phases, evidence.operations
    chaos_s = max(1.0, phases["healed"] - phases["chaos"])
    calm, hurt = _latencies(evidence)
    outcomes = [op.outcome for op in ops]
    return {
        "seed": asked.seed, "seconds": asked.seconds, "broker": asked.kafka, "commit": _commit(), "load_average": os.getloadavg()[0],
        "operations": len(ops), "ok": outcomes.count("ok"), "refused": outcomes.count("fail"), "unclear": outcomes.count("info"),
        "orders": len(evidence.orders), "events": len(evidence.events),
        "faults": len(nemesis.done), "kinds": len({done.kind for done in nemesis.done}), "unfelt_once": sum(not done.seen for done in nemesis.done),
        "faults_per_minute": len(nemesis.done) / chaos_s * 60, "overlapping": nemesis.overlapping(),
        "first_ok_s": phases.get("first_ok", float("nan")) - phases["healed"], "ready_s": phases.get("ready", float("nan")) - phases["healed"],
        "drained_s": phases.get("drained", float("nan")) - phases["healed"],
        "calm_p50_ms": _quantile(calm, 0.5), "calm_p99_ms": _quantile(calm, 0.99),
        "hurt_p50_ms": _quantile(hurt, 0.5), "hurt_p99_ms": _quantile(hurt, 0.99),
    }  # fmt: skip


def _latencies(evidence: Evidence) -> tuple[list[float], list[float]]:
    """Milliseconds of answered calls: those that met no fault, and those that did."""
    every = {fault.target for fault in evidence.faults}
    calm, hurt = [], []
    for op in evidence.operations:
        if op.status and op.kind != "walk":
            (hurt if evidence.touches(op, *every) else calm).append((op.completed - op.invoked) * 1000)
    return calm, hurt


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _keep(home: Path, folder: Path) -> None:
    """The logs and the provider's book, for whoever looks for the cause."""
    for name in ("logs", "psp.jsonl"):
        with suppress(OSError):
            if (home / name).is_dir():
                shutil.copytree(home / name, folder / name, dirs_exist_ok=True)
            elif (home / name).exists():
                shutil.copy(home / name, folder / name)


# -- progress

_began = time.monotonic()


def tell(text: str) -> None:
    """One line of progress."""
    print(f"[{time.monotonic() - _began:6.1f} s] {text}", flush=True)


async def _tell(crowd: Crowd, nemesis: Nemesis, watch: Watch) -> None:
    while True:
        await asyncio.sleep(_TELL_S)
        now = ", ".join(name for name, count in nemesis.under_way.items() if count) or "none"
        sample = watch.samples[-1] if watch.samples else {}
        backlog = (
            f"{sample['outbox']:.0f} in the outbox, {sample['unfinished']:.0f} unfinished" if "outbox" in sample else "PostgreSQL does not answer"
        )
        answers = f"ok {crowd.answers['ok']}, refused {crowd.answers['fail']}, unclear {crowd.answers['info'] + crowd.answers['silent']}"
        tell(f"   {answers} · {len(nemesis.done)} faults, now: {now} · {backlog}")
