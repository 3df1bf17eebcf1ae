"""What a customer waits at one open rate: each peer, the floors and the service asked as often a second, whatever they do.

The rate is two thirds of what the slowest of them carries on its core, so that nobody is measured in overload; a time
counts from when its request was due (`bench/loadgen.c`), so a server that stops is not asked more seldom.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.arms import Arm
from bench.loadgen import run_load
from bench.rounds import CONNECTIONS
from bench.servers import Rig

_ROUNDS, _SECONDS, _SHARE = 5, 2.0, 2 / 3
_PROBE_S: Final = 1.0


@dataclass(slots=True)
class Waited:
    """Of one arm, a value a round: milliseconds."""

    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    def told(self) -> str:
        """Both as medians over the rounds."""
        return f"{statistics.median(self.p50_ms):.1f} | {statistics.median(self.p99_ms):.1f}"


def open_rate(rig: Rig, program: Path, arms: Sequence[Arm]) -> float:
    """Requests a second that all of these can carry with a third to spare."""
    carried = []
    for arm in arms:
        load = run_load(program, port=arm.port, connections=CONNECTIONS, seconds=_PROBE_S, frames=arm.frames, status=arm.status, core=rig.other_core)
        carried.append(load.good / load.seconds)
    return float(max(1, int(min(carried) * _SHARE)))


def wait_times(rig: Rig, program: Path, arms: Sequence[Arm], rate: float, say: Callable[[str], None]) -> Mapping[str, Waited]:
    """Arm → what it made its callers wait at this rate, in interleaved rounds."""
    found, shuffled = {arm.name: Waited() for arm in arms}, list(arms)
    for number in range(_ROUNDS):
        random.shuffle(shuffled)
        for arm in shuffled:
            load = run_load(
                program, port=arm.port, connections=CONNECTIONS, seconds=_SECONDS, frames=arm.frames, status=arm.status,
                core=rig.other_core, rate=rate,
            )  # fmt: skip
            found[arm.name].p50_ms.append(load.p50_us / 1000)
            found[arm.name].p99_ms.append(load.p99_us / 1000)
        say(f"round {number + 1} of {_ROUNDS} at {rate:g} a second")
    return found
