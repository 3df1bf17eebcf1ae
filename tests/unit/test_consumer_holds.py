"""A slow tier full of records that are not due takes nothing from the fast one, and is never early."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from service.events import ORDERS_TOPIC, retry_topic
from service.foundation.lifecycle import Lifecycle
from service.settings import load_settings
from tests.support.virtual_time import EPOCH, VirtualClock, VirtualLoop
from workers.consumer import Consumer
from workers.gate import DeadLetterBreaker, Gate

FAST, SLOW = (TopicPartition(retry_topic(ORDERS_TOPIC, "payments", tier), 0) for tier in (1, 2))
BUFFER, SLOW_RECORDS, SLOW_DUE_S = 5, 40, 600.0


def at_ms(seconds: float) -> int:
    return int((EPOCH.timestamp() + seconds) * 1000)


def make(partition: TopicPartition, offset: int, due_s: float) -> ConsumerRecord:
    headers = (("x-not-before-ms", str(at_ms(due_s)).encode()),)
    return ConsumerRecord(partition.topic, 0, offset, at_ms(0), 0, b"%d" % offset, b"", None, 1, 0, headers)


class Shelf:
    """A `Member` with two partitions; fetching is from the slow one first."""

    def __init__(self, records: Mapping[TopicPartition, list[ConsumerRecord]]) -> None:
        self.records = records
        self._positions: dict[TopicPartition, int] = defaultdict(int)
        self._held: set[TopicPartition] = set()

    async def join(self, _stopping: asyncio.Event) -> bool:
        return True

    async def fetch(self, *, room: int, timeout_s: float) -> Mapping[TopicPartition, Collection[ConsumerRecord]]:
        found = {}
        for partition in (SLOW, FAST):
            taken = [] if partition in self._held else self.records[partition][self._positions[partition] :][:room]
            if taken:
                found[partition], room = taken, room - len(taken)
                self._positions[partition] += len(taken)
        if not found:
            await asyncio.sleep(timeout_s)
        return found

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None: ...
    async def leave(self) -> None: ...

    def assignment(self) -> Collection[TopicPartition]:
        return (FAST, SLOW)

    def hold(self, wanted: Collection[TopicPartition]) -> None:
        self._held = set(wanted)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset

    def end(self, partition: TopicPartition) -> int | None:
        return len(self.records[partition])


class Noting:
    """A handling that notes when each record was handled, in seconds."""

    def __init__(self) -> None:
        self.group, self.paused = "payments", False
        self.gate, self.breaker = Gate("payments"), DeadLetterBreaker("payments", clock=VirtualClock())
        self.at: dict[tuple[str, int], float] = {}

    def ignores(self, _: ConsumerRecord) -> bool:
        return False

    async def finish(self, record: ConsumerRecord) -> str:
        self.at[record.topic, record.offset] = asyncio.get_running_loop().time()
        return "applied"


def test_a_full_slow_tier_does_not_starve_the_fast_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_WORKER_BUFFER", str(BUFFER))
    slow = [make(SLOW, number, SLOW_DUE_S) for number in range(SLOW_RECORDS)]
    fast = [make(FAST, number, 2.0 * (number + 1)) for number in range(10)]
    noting: Any = Noting()

    async def live() -> None:
        lifecycle = Lifecycle()
        consumer = Consumer("x", [], noting, load_settings(), lifecycle, join=lambda _: Shelf({SLOW: slow, FAST: fast}), clock=VirtualClock())
        task = asyncio.create_task(consumer.run())
        await asyncio.sleep(SLOW_DUE_S + 30)
        lifecycle.stop()
        await task

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(live())
    assert len(noting.at) == len(slow) + len(fast), "every one of them, once its time had come"
    for number in range(len(fast)):
        assert -0.001 <= noting.at[FAST.topic, number] - 2.0 * (number + 1) < 1.0, "on time, whatever waits in the slow tier"
    assert min(noting.at[SLOW.topic, number] for number in range(SLOW_RECORDS)) >= SLOW_DUE_S - 0.001
