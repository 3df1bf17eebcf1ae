"""The schedule of faults, decided by the seed alone, and the one who carries it out.

Same seed, same schedule: kinds, order, moments, durations. Not the same interleaving: that is the machine's.
Every kind comes once before any comes again; at least four in ten begin before the one before is over.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.faults.checker.evidence import Fault
from tests.torture.faults import Kind
from tests.torture.rig import Rig

_OVERLAP: Final = 0.5
_GUESS_S: Final = 1.5  # what a fault without a duration of its own (a kill) takes, about
_PROVIDER_REST_S: Final = 5.0  # a second helping would outlast the retry tiers: that is a dead letter by right
_BREAKER_S: Final = 8.0
_STEADY_S: Final = 3.0
_PROBE_S: Final = 0.3  # connecting is tried again so often while its breaker is open
_AGAIN: Final = 3  # a fault nobody felt is made so many times more


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of the plan, in seconds from the beginning."""

    at_s: float
    seconds: float
    kind: Kind


@dataclass(slots=True)
class Done:
    """One fault as it was. `seen`: what it did; empty if nobody felt it."""

    kind: str
    target: str
    begin: float
    end: float
    seen: str


def plan(seed: int, seconds: float, kinds: Sequence[Kind]) -> list[Step]:
    """The steps of a run."""
    choice = random.Random(seed)
    waiting: deque[Kind] = deque(choice.sample(kinds, len(kinds)))
    weights = [kind.weight for kind in kinds]
    free_at: dict[str, float] = {}
    steps: list[Step] = []
    cursor, length = 0.0, _length(kinds, seconds)  # cursor: when all is over
    while True:
        if len(waiting) < 5:
            waiting.extend(choice.choices(kinds, weights, k=10))
        begin = cursor + choice.uniform(0.05, 0.4)
        if steps and choice.random() < _OVERLAP:
            last = steps[-1]
            begin = last.at_s + choice.uniform(0.1, 0.8) * (last.seconds or _GUESS_S)
        # The first of those that wait whose slot is free; if none is, the one that has to wait least.
        kind = next((kind for kind in waiting if free_at.get(kind.slot, 0.0) <= begin), None) or min(waiting, key=lambda k: free_at[k.slot])
        waiting.remove(kind)
        begin = max(begin, free_at.get(kind.slot, 0.0))
        if begin > seconds:
            return steps + _missing(kinds, steps, seconds)
        lasts = choice.uniform(*kind.seconds) * length if kind.seconds[1] <= 3 else choice.uniform(*kind.seconds)
        steps.append(Step(begin, lasts, kind))
        end = begin + (lasts or _GUESS_S)
        cursor = max(cursor, end)
        free_at[kind.slot] = end + (_PROVIDER_REST_S if kind.slot == "provider" else 0.1)


def _missing(kinds: Sequence[Kind], steps: Sequence[Step], seconds: float) -> list[Step]:
    """Where there is room for every kind, those that found none come at the end."""
    if seconds < len(kinds):
        return []
    met = {step.kind.name for step in steps}
    return [Step(seconds + number, kind.seconds[0], kind) for number, kind in enumerate(kind for kind in kinds if kind.name not in met)]


def _length(kinds: Sequence[Kind], seconds: float) -> float:
    """Faults of a short run are shorter, so that more kinds have room."""
    return min(1.0, max(0.5, seconds / (1.2 * len(kinds))))


@dataclass(slots=True)
class Nemesis:
    """Carries a plan out and writes down what was."""

    rig: Rig
    seed: int
    path: Path
    done: list[Done] = field(default_factory=list)
    under_way: Counter[str] = field(default_factory=Counter)
    aftermath: list[Fault] = field(default_factory=list)
    _slots: dict[str, asyncio.Lock] = field(default_factory=dict)
    _watchers: set[asyncio.Task[None]] = field(default_factory=set)

    async def torment(self, steps: Sequence[Step]) -> None:
        """All steps, then once more those that nobody felt; returns when the last is healed."""
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, step in enumerate(steps):
                await asyncio.sleep(max(0.0, begin + step.at_s - time.monotonic()))
                group.create_task(self._strike(step, number))
        kinds = {step.kind.name: replace(step, seconds=step.kind.seconds[1]) for step in steps}
        for attempt in range(_AGAIN):
            for number, name in enumerate(sorted(self.unfelt())):
                await self._strike(kinds[name], 1_000 * (attempt + 1) + number)

    def unfelt(self) -> set[str]:
        """Kinds that were made and never felt."""
        return {done.kind for done in self.done} - {done.kind for done in self.done if done.seen}

    async def settled(self) -> None:
        """Wait for those who watch how long Redis stays away in the eyes of the service."""
        await asyncio.gather(*self._watchers)

    async def _strike(self, step: Step, number: int) -> None:
        kind = step.kind
        async with self._slots.setdefault(kind.slot, asyncio.Lock()):
            self.under_way[kind.name] += 1
            done = Done(kind.name, kind.target, time.time(), 0.0, "")
            try:
                done.seen = await kind.strike(self.rig, step.seconds, random.Random(f"{self.seed}-{number}"))
            except Exception as error:  # noqa: BLE001 - a fault that cannot be made while others are at work is made again later
                done.seen = ""
                print(f"      {kind.name} could not be made: {type(error).__name__} {error}", flush=True)
            done.end = time.time()
            self.under_way[kind.name] -= 1
        self.done.append(done)
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(done)) + "\n")
        if kind.target in {"redis", "postgres"}:
            self._watchers.add(asyncio.create_task(self._is_back(kind.target, done.end)))

    async def _is_back(self, target: str, begin: float) -> None:
        """Breakers opened by the fault stay open a moment longer: until then the server is away for the service.

        PostgreSQL's may close and open again while everybody logs in at once: it is back once it stayed closed for a while.
        """
        deadline = time.monotonic() + _BREAKER_S
        await asyncio.sleep(_PROBE_S)
        last_open, steady_s = time.monotonic(), _STEADY_S if target == "postgres" else 0.0
        end = time.time()
        while time.monotonic() < deadline:
            states = await self.rig.metric("api", f'orders_breaker_state{{dependency="{target}')
            if any(states) or not states:
                last_open, end = time.monotonic(), time.time()
            elif time.monotonic() - last_open >= steady_s:
                break
            await asyncio.sleep(0.1)
        self.aftermath.append(Fault("breaker open", target, begin, end))

    def faults(self) -> list[Fault]:
        """For the checker."""
        return [Fault(d.kind, d.target, d.begin, d.end) for d in self.done] + self.aftermath

    def overlapping(self) -> float:
        """Share of faults that were under way together with another."""
        met = sum(any(a is not b and a.begin < b.end and b.begin < a.end for b in self.done) for a in self.done)
        return met / len(self.done) if self.done else 0.0
