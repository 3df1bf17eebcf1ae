"""`python -m tests.torture --seed 1 --seconds 60 [--kafka real]`: one run, its verdict, and where its artefacts are."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import time
from pathlib import Path

import uvloop

from service.dev.children import StackError
from service.dev.state import ROOT
from tests.torture import soak
from tests.torture.run import Asked, Outcome, run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, help="decides the faults (default: a new one)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of chaos; from about 50 on every kind of fault has room")
    parser.add_argument("--kafka", choices=("memory", "real"), default="memory")
    parser.add_argument("--calm", action="store_true", help="a soak: customers for so long, no faults; ends in growth figures")
    parser.add_argument("--out", type=Path, help="folder of the artefacts (default: build/torture/…)")
    return parser.parse_args()


def main() -> int:
    """Run, print, answer the exit code."""
    asked = _arguments()
    seed = random.SystemRandom().randrange(100_000) if asked.seed is None else asked.seed
    folder = (asked.out or ROOT / "build" / "torture" / f"{asked.kafka}-{seed}-{asked.seconds:g}s-{time.strftime('%H%M%S')}").absolute()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcome = runner.run(run(Asked(seed, asked.seconds, asked.kafka, folder, calm=asked.calm)))
    except StackError as error:
        print(f"torture: {error}", file=sys.stderr)
        return 2
    report(outcome)
    if asked.calm and asked.seconds >= soak.KEPT_FROM_S:
        soak.keep(outcome.figures | {"verdict": outcome.reason})
    print(f"artefacts  {folder}\ntimeline   {folder / 'timeline.html'}")
    print(f"replay     make torture SEED={seed} SECONDS={asked.seconds:g} KAFKA={asked.kafka}")
    return outcome.code


def report(outcome: Outcome) -> None:
    """The lines, and the figures under them."""
    print("\n" + "\n".join(outcome.lines))
    f = outcome.figures
    print(f"\nseed {f['seed']}, {f['broker']} broker, commit {f['commit']}, load average {f['load_average']:.1f}")
    print(f"faults     {f['faults']} of {f['kinds']} kinds, {f['faults_per_minute']:.0f} a minute, {f['overlapping']:.0%} overlapping")
    print(f"calls      {f['operations']:,}: {f['ok']:,} ok, {f['refused']:,} refused, {f['unclear']:,} unclear; {f['orders']:,} orders")
    print(f"latency    p50/p99 {f['calm_p50_ms']:g}/{f['calm_p99_ms']:g} ms in calm, {f['hurt_p50_ms']:g}/{f['hurt_p99_ms']:g} ms in a fault")
    print(f"machine    {f['slowness']:.1f} times slower than a quiet one")
    print(f"afterwards first success {f['first_ok_s']:.1f} s, ready {f['ready_s']:.1f} s, drained {f['drained_s']:.1f} s after the last heal")
    for name, g in f["growth"].items():
        print(
            f"growth     {name.replace('_', ' ')}: {g['second']:,.0f} in the second quarter, {g['last']:,.0f} in the last, {g['slope']:+.2f} a minute"
        )
    print({0: "HELD", 1: "VIOLATED", 2: "INCONCLUSIVE"}[outcome.code] + f"      {outcome.reason}")


if __name__ == "__main__":
    sys.exit(main())
