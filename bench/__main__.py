"""`python -m bench quick|full|events|profile`: exit 0 every must is met, 1 one is missed, 2 inconclusive or it cannot run here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from bench.errors import BenchError
from bench.ladder import climb
from bench.loadgen import compile_generator
from bench.pipeline import run_pipeline, start_broker
from bench.profile import profile
from bench.progress import teller
from bench.report import EXIT_CODES, Report, show, write
from bench.servers import run_apart, running_rig
from service.dev.children import StackError
from service.dev.state import ROOT


def _quick(say: Callable[[str], None]) -> Report:
    program = compile_generator()
    with running_rig() as rig:
        return climb(rig, program, mode="quick", rounds=20, seconds=0.15, pgbench_runs=3, say=say)


def _full(say: Callable[[str], None]) -> Report:
    program = compile_generator()
    with running_rig() as rig:
        report = climb(rig, program, mode="full", rounds=20, seconds=0.4, pgbench_runs=5, say=say)
        run_pipeline(rig, program, report, say)
    return report


_BLOCKS = 8


def _events(say: Callable[[str], None]) -> None:
    """What an event costs: in each group beside the raw SQL of its effect, and in the outbox."""
    with running_rig() as rig:
        broker = start_broker(rig)
        try:
            say("each group against the raw SQL of its effect")
            for group, figures in run_apart(rig, "bench.groups", _BLOCKS).items():
                print(
                    f"{group:<14} {figures['group_us']:>7.0f} µs an event, its effect {figures['floor_us']:>6.0f}: {figures['ratio']:.2f} ×",
                    flush=True,
                )
            say(f"outbox and relay ({'Apache Kafka' if broker.kind == 'real' else 'in-memory broker'})")
            outbox = run_apart(rig, "bench.outbox", _BLOCKS)
        finally:
            broker.stop()
    for name, figure in outbox.items():
        print(f"{name:<24} {figure:>8.2f}" if "÷" in name else f"{name:<24} {figure:>8.0f}")


_MODES = {"quick": _quick, "full": _full}


def main() -> int:
    """Run one mode and print its report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("mode", choices=("quick", "full", "events", "profile"))
    mode = parser.parse_args().mode
    say = teller()

    say("starting PostgreSQL, Redis, the floors and the API")
    try:
        if mode == "profile":
            for picture in profile(say):
                say(f"written to {picture.relative_to(ROOT)}")
            return 0
        if mode == "events":
            _events(say)
            return 0
        report = _MODES[mode](say)
    except (BenchError, StackError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    write(report)
    print(show(report))
    say(f"written to bench/results/latest.json; exit {EXIT_CODES[report.verdict]}")
    return EXIT_CODES[report.verdict]


if __name__ == "__main__":
    sys.exit(main())
