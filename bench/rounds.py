"""Interleaved rounds: every arm once a round, in shuffled order, CPU counted per request; medians over the rounds.

Noise of the host hits all arms of a round alike, so ratios hold where absolutes do not.
Tests: tests/faults/test_measuring.py.
"""

from __future__ import annotations

import os
import random
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.arms import Arm
from bench.cpu import backends, cpu_ns, snapshot, spent_ns
from bench.errors import BenchError
from bench.floor_sql import pgbench_script
from bench.loadgen import run_load
from bench.servers import Rig

CONNECTIONS: Final = 16
_SETTLE_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Sample:
    """One arm in one round; microseconds of CPU a request by where they were spent."""

    server_us: float
    postgres_us: float
    redis_us: float
    generator_us: float
    per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class Series:
    """All samples of one arm."""

    samples: list[Sample] = field(default_factory=list)

    def median(self, name: str) -> float:
        """Median of one field of the samples."""
        return float(statistics.median(getattr(sample, name) for sample in self.samples))

    def spread(self, name: str = "server_us") -> float:
        """Third quartile ÷ first − 1: how much the host disturbed this arm (0 with fewer than four samples)."""
        values = [getattr(sample, name) for sample in self.samples]
        if len(values) < 4:
            return 0.0
        first, _, third = statistics.quantiles(values, n=4, method="inclusive")
        return float(third / first - 1)


def ratio(arm: Series, floor: Series, name: str = "server_us") -> float:
    """Median over the rounds of arm ÷ floor in the same round: what disturbs a round cancels out."""
    pairs = zip(arm.samples, floor.samples, strict=True)
    return float(statistics.median(getattr(a, name) / getattr(f, name) for a, f in pairs))


def measure(rig: Rig, program: Path, arm: Arm, seconds: float) -> Sample:
    """Run one arm once."""
    server, redis, postgres = [rig.pid(arm.process)], [rig.redis.running().pid], backends(rig.postgres.running().pid)
    server_ns, redis_ns, postgres_ns = cpu_ns(server), cpu_ns(redis), snapshot(postgres)
    load = run_load(program, port=arm.port, connections=CONNECTIONS, seconds=seconds, frames=arm.frames, status=arm.status, core=rig.other_core)
    time.sleep(_SETTLE_S)  # the last answers' logs and spans
    spent = (cpu_ns(server) - server_ns, spent_ns(postgres_ns, postgres), cpu_ns(redis) - redis_ns)
    server_us, postgres_us, redis_us = (ns / 1000 / load.good for ns in spent)
    return Sample(server_us, postgres_us, redis_us, load.cpu_us / load.good, load.good / load.seconds, load.p50_us / 1000, load.p99_us / 1000)


def run_rounds(rig: Rig, program: Path, arms: Sequence[Arm], *, rounds: int, seconds: float, say: Callable[[str], None]) -> dict[str, Series]:
    """Warm every arm up, then measure it once a round; progress goes to `say`."""
    for arm in arms:
        measure(rig, program, arm, 0.25)
    series = {arm.name: Series() for arm in arms}
    shuffled, rng, told = list(arms), random.Random(), time.monotonic()  # another order each run: who comes after whom must not count
    for number in range(rounds):
        rng.shuffle(shuffled)
        for arm in shuffled:
            series[arm.name].samples.append(measure(rig, program, arm, seconds))
        if time.monotonic() - told > 2:
            told = time.monotonic()
            say(f"round {number + 1} of {rounds}")
    return series


def run_pgbench(rig: Rig, seconds: int) -> float:
    """Orders a second of pgbench running the floor's statement, as many clients as the load has connections."""
    script = rig.home / "place.pgbench"
    script.write_text(pgbench_script(["SKU-0101", "SKU-0202"], [1, 2], _prices(rig, "SKU-0101", "SKU-0202")))
    pin = ["taskset", "-c", str(rig.server_core)] if rig.server_core is not None else []
    asked = ["-n", "-M", "prepared", "-c", str(CONNECTIONS), "-T", str(seconds), "-f", str(script), rig.postgres.url]
    options = {"PGOPTIONS": "-c plan_cache_mode=force_generic_plan -c random_page_cost=1.1 -c jit=off", "PATH": os.environ["PATH"]}
    command = [*pin, str(rig.postgres.binaries / "pgbench"), *asked]
    done = subprocess.run(command, capture_output=True, text=True, env=options, timeout=60, check=False)
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    if done.returncode or found is None:
        raise BenchError(f"pgbench failed: {done.stderr.strip()[-400:]}")
    return float(found[1])


def _prices(rig: Rig, *skus: str) -> list[int]:
    answer = rig.postgres.run("psql", "-XAtqc", "SELECT sku, price_minor FROM product")
    known = dict(line.split("|") for line in answer.split())
    return [int(known[sku]) for sku in skus]
