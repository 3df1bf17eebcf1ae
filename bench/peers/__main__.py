"""`python -m bench.peers`: floors, peers and the service with everything on, in interleaved rounds on one core.

Prints the table, writes `bench/results/peers.json` and, with `--picture FILE`, the ladder as SVG. The frameworks are
installed once into `build/peers` from requirements/peers.txt (pinned by hash). `--steps`: instead of the peers, the usual
stack's read with one part more at a time. `--latency`: what a customer waits, all asked as often a second. Exit 2 when it
cannot run here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench import arms as arm_table
from bench.apart import installed
from bench.arms import Arm
from bench.database.findings import Bars
from bench.database.pictures import bars
from bench.errors import BenchError
from bench.loadgen import compile_generator
from bench.peers import PEERS, STEPS
from bench.peers.latency import Waited, open_rate, wait_times
from bench.progress import teller
from bench.report import RESULTS
from bench.rounds import Series, ratio, run_rounds
from bench.servers import Rig, await_port, running_rig, start
from service.dev.children import StackError

_ROUNDS, _SECONDS = 10, 0.4
# The service's arm, and the floor beside it.
_JOBS: Final = (("create_all_on", "w0"), ("get_cached_all_on", "p1"))
_FIRST_PORT: Final = 105


def measure(say: Callable[[str], None]) -> dict[str, Series]:
    """Arm → its samples; the service is `create_all_on`, a peer's create `create_all_on usual`."""
    program = compile_generator()
    with _all_running(say) as (rig, arms):
        return run_rounds(rig, program, [arm for job in arms for arm in job], rounds=_ROUNDS, seconds=_SECONDS, say=say)


def measure_latency(say: Callable[[str], None]) -> list[tuple[str, float, Mapping[str, Waited]]]:
    """(job, its rate, arm → what its callers waited)."""
    program = compile_generator()
    with _all_running(say) as (rig, arms):
        rates = [open_rate(rig, program, of_job) for of_job in arms]
        return [(job, rate, wait_times(rig, program, of_job, rate, say)) for (job, _), rate, of_job in zip(_JOBS, rates, arms, strict=True)]


@contextmanager
def _all_running(say: Callable[[str], None]) -> Iterator[tuple[Rig, list[list[Arm]]]]:
    """Floors, service and peers, each on the server's core; the arms of each job: the service's, the floor's, the peers'."""
    python = installed("peers", "the peers' frameworks", say) / "python"
    with running_rig() as rig:
        table = {arm.name: arm for arm in arm_table.prepare(rig)}
        if missing := arm_table.missing_features(rig):
            raise BenchError(f"not everything is on: {', '.join(missing)}")
        ports = _start_peers(rig, python)
        yield rig, [[table[job], table[floor], *(_of_peer(table[job], name, port) for name, port in ports.items())] for job, floor in _JOBS]


def measure_steps(say: Callable[[str], None]) -> list[float]:
    """CPU of the usual stack's read ÷ the floor's, after each step."""
    python, program = installed("peers", "the peers' frameworks", say) / "python", compile_generator()
    with running_rig() as rig:
        table = {arm.name: arm for arm in arm_table.prepare(rig)}
        arms = [table["p1"]]
        for step in range(len(STEPS)):
            name, port = f"step-{step}", rig.base_port + _FIRST_PORT + step
            start(rig, name, "bench.peers.steps", env={"HTTP_PORT": str(port), "PEER_STEP": str(step)}, core=rig.server_core, python=python)
            await_port(rig, name, port)
            arms.append(replace(table["get_cached_all_on"], name=name, process=name, port=port, label=name))
        series = run_rounds(rig, program, arms, rounds=_ROUNDS, seconds=_SECONDS, say=say)
    return [ratio(series[arm.name], series["p1"]) for arm in arms[1:]]


def _tell_steps(found: Sequence[float]) -> None:
    print("\n| the usual stack's read | ÷ p1 | of it this step |\n|---|---|---|")
    for text, so_far, before in zip(STEPS, found, [0.0, *found], strict=False):
        print(f"| {text} | {so_far:.1f} | {(so_far - before) / found[-1]:.0%} |")


def _tell_latency(found: Sequence[tuple[str, float, Mapping[str, Waited]]]) -> None:
    for job, rate, waited in found:
        print(f"\n| {job.removesuffix('_all_on')}, {rate:g} a second | p50, ms | p99, ms |\n|---|---|---|")
        labels = {f"{job} {peer.name}": peer.label for peer in PEERS} | {job: "**Plumbline**, everything on"}
        for name, times in sorted(waited.items(), key=lambda item: statistics.median(item[1].p50_ms)):
            print(f"| {labels.get(name, 'floor: raw ASGI by hand')} | {times.told()} |")


def _start_peers(rig: Rig, python: Path) -> dict[str, int]:
    ports = {peer.name: rig.base_port + _FIRST_PORT + number for number, peer in enumerate(PEERS)}
    for name, port in ports.items():
        start(rig, name, f"bench.peers.{name}", env={"HTTP_PORT": str(port)}, core=rig.server_core, python=python)
        await_port(rig, name, port)
    return ports


def _of_peer(arm: Arm, name: str, port: int) -> Arm:
    return replace(arm, name=f"{arm.name} {name}", process=name, port=port, label=name)


def rows(series: Mapping[str, Series]) -> list[tuple[str, str, list[float]]]:
    """(label, what is on, ratios to the floor and requests a second, for the create and for the read), cheapest create first."""
    found = [("floor: raw ASGI by hand", "nothing", _figures(series, [floor for _, floor in _JOBS]))]
    found += [("**Plumbline**", "everything", _figures(series, [job for job, _ in _JOBS]))]
    found += [(p.label, "everything" if p.everything else "nothing", _figures(series, [f"{job} {p.name}" for job, _ in _JOBS])) for p in PEERS]
    return sorted(found, key=lambda row: row[2][0])


def _figures(series: Mapping[str, Series], names: Sequence[str]) -> list[float]:
    floors = [floor for _, floor in _JOBS]
    return [value for name, floor in zip(names, floors, strict=True) for value in (ratio(series[name], series[floor]), series[name].median("per_s"))]


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write the ladder as SVG")
    parser.add_argument("--steps", action="store_true", help="the usual stack's read, one part more at a time")
    parser.add_argument("--latency", action="store_true", help="p50 and p99 at one open rate that all of them carry")
    chosen, say = parser.parse_args(), teller()

    try:
        if chosen.steps:
            _tell_steps(measure_steps(say))
        if chosen.latency:
            _tell_latency(measure_latency(say))
        if chosen.steps or chosen.latency:
            return 0
        found = rows(measure(say))
    except (BenchError, StackError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print("\n| | token, quota, log, metrics, traces | create ÷ w0 | creates/s | read ÷ p1 | reads/s |\n|---|---|---|---|---|---|")
    for label, on, (create, creates, read, reads) in found:
        print(f"| {label} | {on} | {create:.2f} | {creates:,.0f} | {read:.2f} | {reads:,.0f} |")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.with_name("peers.json").write_text(json.dumps({label.strip("*"): figures for label, _, figures in found}, indent=2) + "\n")
    if chosen.picture:
        shown = [(label.strip("*"), figures[0]) for label, _, figures in found]
        title = "CPU of one create, times the floor's"
        chosen.picture.write_text(bars(Bars(title=title, unit="×", bars=shown, log=True, other=["Plumbline"], other_is="this service")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
