"""What the commands do: one run, a search for the capacity, a sweep for the scalability law, a comparison of two runs.

Each answers its exit code and leaves `summary.json` and `report.html` in its folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from loadtests import fit, verdict
from loadtests.plan import SCENARIOS, Plan
from loadtests.quiet import TRIES, disturbances, held_anyway, undisturbed
from loadtests.report import page, summary, terminal
from loadtests.report.plots import Line, Plot
from loadtests.run import Run, judge, measure
from loadtests.target import Target, Wanted, open_target

USERS: Final = (1, 2, 4, 8, 16, 32, 64)


def run_scenario(plan: Plan, wanted: Wanted, *, out: Path | None = None, objectives: Path | None = None, env: Mapping[str, str] | None = None) -> int:
    """One run, judged and reported."""
    folder, slo = _folder(plan.name, out), verdict.load_objectives(objectives)
    with open_target(wanted, profile=plan.profile, env=env) as target:
        run = measure(plan, target, folder)
    judge(run, slo)
    report(run, folder, profile=target.profile)
    return run.code


def report(run: Run, folder: Path, *, profile: str = "") -> dict[str, Any]:
    """Files and terminal."""
    said = summary.summarise(run, profile=profile)
    summary.write(said, folder)
    print(terminal.table(run.recorder, run.checks, open_model=run.plan.open_model))
    if said["saturated"]:
        print(said["saturated"])
    print(f"report: {page.write(said, folder)}   numbers: {folder / 'summary.json'}", flush=True)
    return said


def find_capacity(
    wanted: Wanted, *, start: float, seconds: float, out: Path | None = None, objectives: Path | None = None, rehearse: bool = False
) -> int:
    """Orders a second at the objective. Exit 2 when a step is invalid (unless rehearsed) or the repeats disagree."""
    folder, slo = _folder("capacity", out), verdict.load_objectives(objectives)
    runs: list[Run] = []
    invalid: list[str] = []
    with open_target(wanted) as target:

        def step(rate: float) -> Run:
            run = measure(Plan("capacity", rate=rate, seconds=seconds, mix="buy", pool=1_000), target, folder / f"{len(runs):02d}-{rate:.0f}")
            judge(run, slo)
            return run

        def holds(rate: float) -> tuple[bool, float]:
            run = undisturbed(partial(step, rate), tries=1 if rehearse else TRIES, believe=held_anyway)
            runs.append(run)
            if not held_anyway(run):
                invalid.extend(f"at {rate:.0f}/s {terminal.reason(check)}" for check in disturbances(run))
            broken = [check for check in run.checks if check.kind == "objective" and not check.holds]
            print("  " + ("held" if not broken else f"broke: {'; '.join(terminal.reason(check) for check in broken)}"), flush=True)
            if any(check.kind == "invariant" and not check.holds for check in run.checks):
                raise _Stop
            if invalid and not rehearse:
                raise _Stop
            return not broken, run.recorder.dispatch.served / seconds

        found = fit.Capacity()
        try:
            found = fit.search_capacity(holds, start=start)
        except _Stop:
            held = max((run.plan.rate for run in runs if held_anyway(run)), default=0.0)
            found.refused = f"the search was ended by an invalid run or a broken invariant; {held:g}/s were held"
    return _tell_capacity(found, runs, invalid, folder, target)


class _Stop(Exception):
    """There is no use in going on."""


def _tell_capacity(found: fit.Capacity, runs: list[Run], invalid: list[str], folder: Path, target: Target) -> int:
    last_good = next((run for run in reversed(runs) if all(c.holds for c in run.checks if c.kind == "objective")), runs[-1])
    first_bad = next((run for run in runs if any(not c.holds for c in run.checks if c.kind == "objective")), runs[-1])
    p99 = last_good.latency(0.99)
    cause = first_bad.saturated
    broken = [check for run in runs for check in run.checks if check.kind == "invariant" and not check.holds]
    code = verdict.BROKEN if broken else verdict.INVALID if invalid or found.refused else verdict.OK
    carried = max((run.carried or 0.0 for run in runs), default=0.0)
    result = (
        f"capacity at objective = {found.low:.0f}–{found.high:.0f} orders/s accepted (p99 {p99:g} ms) for {last_good.plan.seconds:g} s; "
        f"{carried:.0f}/s of them carried to their end, the rate to go on with"
        if found.repeats
        else "no capacity found"
    )
    why = "; ".join(filter(None, [found.refused, invalid[0] if invalid else ""]))
    headline = f"{result}; first to saturate: {cause.resource if cause else 'nothing was full'}" + (
        f" — {verdict.NAMES[code]}: {why}" if code else ""
    )
    said = summary.summarise(first_bad, profile=target.profile) | {
        "scenario": "capacity", "exit": code, "verdict": verdict.NAMES[code], "headline": headline,
        "tried": found.tried, "repeats": found.repeats, "carried": carried,
        "steps": [_step(run) for run in runs],
    }  # fmt: skip
    steps = sorted(said["steps"], key=lambda step: step["rate"])
    plots = [
        Plot("Throughput against offered rate", "offered, orders a second", "answered a second",
             [Line("answered", [(s["rate"], s["achieved"]) for s in steps], dots=True),
              Line("carried to their end", [(s["rate"], s["carried"]) for s in steps], dots=True),
              Line("offered", [(s["rate"], s["rate"]) for s in steps])]),
        Plot("Latency against offered rate", "offered, orders a second", "ms",
             [Line(mark, [(s["rate"], s[f"{mark}_ms"]) for s in steps], dots=True) for mark in ("p50", "p99")], log_y=True),
    ]  # fmt: skip
    summary.write(said, folder)
    machine = said["host"]
    print(f"\n{headline}\n  {cause.evidence if cause else ''}\n  on {machine['cpu']}, {machine['cores']} cores, commit {said['commit']}")
    print(f"report: {page.write(said, folder, plots=plots)}   numbers: {folder / 'summary.json'}", flush=True)
    return code


def _step(run: Run) -> dict[str, float]:
    achieved = run.recorder.dispatch.served / run.plan.seconds
    return {"rate": run.plan.rate, "achieved": achieved, "carried": run.carried or 0.0, "p50_ms": run.latency(0.5), "p99_ms": run.latency(0.99)}


def fit_scalability(wanted: Wanted, *, seconds: float, mix: str = "buy", out: Path | None = None) -> int:
    """Closed sweep and fit; 2 when the law is refused."""
    folder = _folder("usl", out)
    points: list[tuple[float, float]] = []
    runs: list[Run] = []
    with open_target(wanted) as target:

        def step(users: int) -> Run:
            run = measure(Plan("usl", users=users, seconds=seconds, mix=mix, model="closed", think=False), target, folder / f"{users:02d}")
            judge(run, verdict.load_objectives())
            return run

        for users in USERS:
            runs.append(run := undisturbed(partial(step, users)))
            points.append((users, run.recorder.requests / seconds))
            print(f"  {users:>3} users: {points[-1][1]:7.1f}/s, p99 {run.latency(0.99):g} ms", flush=True)
    law = fit.fit_usl(points)
    noisy = [f"at {run.plan.users} users {terminal.reason(check)}" for run in runs for check in disturbances(run)]
    if noisy and not law.refused:
        law = replace(law, refused=noisy[0])
    best = law.best_users
    if law.refused:
        headline = f"no N* is named: {law.refused}"
    else:
        peak = f"N* = {best:.0f} users, {law.throughput(best):.0f}/s" if best else "throughput never falls (κ = 0)"
        parameters = f"λ = {law.per_user:.1f}/s a user, σ = {law.sigma:.3f} (waits in line), κ = {law.kappa:.5f} (talks to each other)"
        headline = f"{parameters}, R² = {law.r2:.3f}: {peak}"
    code = verdict.INVALID if law.refused else verdict.OK
    said = summary.summarise(run, profile=target.profile) | {
        "scenario": "usl", "exit": code, "verdict": verdict.NAMES[code], "headline": headline, "points": points,
        "fit": {"lambda": law.per_user, "sigma": law.sigma, "kappa": law.kappa, "r2": law.r2, "best_users": best},
    }  # fmt: skip
    fitted = [Line("fitted", [(n, law.throughput(n)) for n in range(1, USERS[-1] + 1)])] if law.per_user else []
    plot = Plot("Throughput against users (closed)", "users", "a second", [Line("measured", points, dots=True), *fitted])
    summary.write(said, folder)
    print(f"\n{headline}\nreport: {page.write(said, folder, plots=[plot])}   numbers: {folder / 'summary.json'}", flush=True)
    return code


def compare_runs(before: Path, after: Path) -> int:
    """The table of `diff`; 0 no worse, 1 worse beyond the noise, 2 not comparable."""
    a, b = (json.loads((path / "summary.json" if path.is_dir() else path).read_text()) for path in (before, after))
    unlike = [name for name in ("scenario", "latency_from") if a[name] != b[name]]
    unlike += [f"plan {name}" for name in ("model", "shape", "rate", "mix") if a["plan"][name] != b["plan"][name]]
    unlike += ["host" for _ in [0] if (a["host"]["cpu"], a["host"]["cores"]) != (b["host"]["cpu"], b["host"]["cores"])]
    unlike += [f"{name} is invalid" for name, run in (("the first", a), ("the second", b)) if run["exit"] == verdict.INVALID]
    found = fit.compare(a, b)
    print(f"{'':<40}{a['commit']:>12}{b['commit']:>12}{'change':>9}{'noise':>8}")
    for row in found:
        print(f"{row.name:<40}{row.before:>12g}{row.after:>12g}{row.change:>+9.0%}{'±' + format(min(row.noise, 9.99), '.0%'):>8}  {row.verdict}")
    if unlike:
        print(f"not comparable: {', '.join(unlike)} differ" if "invalid" not in unlike[-1] else f"not comparable: {', '.join(unlike)}")
        return verdict.INVALID
    return verdict.MISSED if any(row.verdict == "worse" for row in found) else verdict.OK


def _folder(name: str, out: Path | None) -> Path:
    folder = out or Path("load-results") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


__all__ = ["SCENARIOS", "compare_runs", "find_capacity", "fit_scalability", "report", "run_scenario"]
