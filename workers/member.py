"""One membership in a consumer group: every call to Kafka ends within a bound, whatever Kafka does.

aiokafka waits without one while Kafka is away: for an assignment (`start`, `getmany`), for the coordinator
(`commit`), for its own tasks (`stop`). A loop that hangs there is taken for dead, and cannot be stopped.
Tests: tests/integration/test_member.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.structs import ConsumerRecord, TopicPartition

from service.foundation.kafka import make_consumer
from service.settings import KafkaSettings

_JOIN_S: Final = 30.0
_FETCH_S: Final = 2.0
_COMMIT_S: Final = 3.0
_LEAVE_S: Final = 4.0


class Member(Protocol):
    """What a consumer needs of Kafka; the simulation has another one."""

    async def join(self, stopping: asyncio.Event) -> bool: ...
    async def fetch(self, *, room: int, timeout_s: float) -> Mapping[TopicPartition, Collection[ConsumerRecord]]: ...
    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None: ...
    async def leave(self) -> None: ...
    def assignment(self) -> Collection[TopicPartition]: ...
    def hold(self, wanted: Collection[TopicPartition]) -> None: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    def end(self, partition: TopicPartition) -> int | None: ...


class KafkaMember:
    """A `Member` of a real group."""

    def __init__(self, settings: KafkaSettings, *, group: str, topics: list[str], listener: ConsumerRebalanceListener) -> None:
        self._consumer: AIOKafkaConsumer = make_consumer(settings, group=group, client_id=f"plumbline-{group}")
        self._consumer.subscribe(topics=topics, listener=listener)

    async def join(self, stopping: asyncio.Event) -> bool:
        """Connect and wait for an assignment; False if the process stops first. Raises `KafkaError`, `OSError`."""
        start = asyncio.ensure_future(self._consumer.start())
        stop = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait({start, stop}, timeout=_JOIN_S, return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                start.result()
                return True
            if stop.done():
                return False
            raise TimeoutError(f"the group gave no assignment within {_JOIN_S:g} s")
        finally:
            for task in (start, stop):
                task.cancel()
            await asyncio.gather(start, stop, return_exceptions=True)

    async def fetch(self, *, room: int, timeout_s: float) -> Mapping[TopicPartition, Collection[ConsumerRecord]]:
        """Up to `room` records, or none within the time (also while the group has no assignment)."""
        try:
            async with asyncio.timeout(_FETCH_S):
                found: dict[TopicPartition, list[ConsumerRecord]] = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=room)
                return found
        except TimeoutError:
            return {}

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Raises `KafkaError` or `OSError` (a timeout too) when it did not happen, or may not have."""
        async with asyncio.timeout(_COMMIT_S):
            await self._consumer.commit(dict(offsets))

    async def leave(self) -> None:
        """Leave the group and close, bounded; a stop that hangs leaks its tasks and its client otherwise."""
        if await _ends(self._consumer.stop()):
            return
        coordinator = getattr(self._consumer, "_coordinator", None)
        for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task"):
            task = getattr(coordinator, name, None)
            if task is not None:
                task.cancel()
        if (fetcher := getattr(self._consumer, "_fetcher", None)) is not None:
            await _ends(fetcher.close())
        await _ends(self._consumer._client.close())  # noqa: SLF001 - what a whole `stop` would have done last

    def assignment(self) -> Collection[TopicPartition]:
        """The partitions that are ours now."""
        found: Collection[TopicPartition] = self._consumer.assignment()
        return found

    def hold(self, wanted: Collection[TopicPartition]) -> None:
        """Fetch from all of ours but `wanted`."""
        assigned, paused = set(self._consumer.assignment()), set(self._consumer.paused())
        held = assigned & set(wanted)
        if held - paused:
            self._consumer.pause(*(held - paused))
        if (paused & assigned) - held:
            self._consumer.resume(*((paused & assigned) - held))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """The next record fetched is the one at `offset`; nothing if the partition is not ours any more."""
        if partition in self._consumer.assignment():
            self._consumer.seek(partition, offset)

    def end(self, partition: TopicPartition) -> int | None:
        """The offset after the last record in Kafka, as far as known."""
        end: int | None = self._consumer.highwater(partition)
        return end


async def _ends(closing: Coroutine[Any, Any, None]) -> bool:
    """True if it ended well within the bound. In a task of its own: aiokafka lets the cancellation of its inner tasks out."""
    task = asyncio.ensure_future(closing)
    try:
        await asyncio.wait({task}, timeout=_LEAVE_S)
        return task.done() and not task.cancelled() and task.exception() is None
    finally:
        task.cancel()
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
