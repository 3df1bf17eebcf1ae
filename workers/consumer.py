"""A group's consumer: fetch, run keys side by side and each key in order, commit the contiguous done prefix.

Nothing is committed before it is finished, so a kill at any moment only repeats work (the inbox absorbs it).
While the group is paused or full the loop keeps polling, or Kafka would take its partitions away.
Tests: tests/integration/test_consumer.py, tests/stories.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition

from service.foundation import failpoints, metrics
from service.foundation.kafka import make_consumer
from service.foundation.lifecycle import Lifecycle
from service.foundation.log import get_logger
from service.settings import Settings
from workers.envelope import not_before_ms
from workers.handling import Handling
from workers.progress import Progress

log = get_logger(__name__)

_POLL_MS: Final = 200
_COMMIT_S: Final = 1.0
_COMMIT_RECORDS: Final = 500
_RECONNECT_S: Final = 1.0
_STOP_S: Final = 5.0

Lane = tuple[TopicPartition, bytes | None]


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of one group, reading `topics`; `name` tells its loops apart in heartbeats."""

    def __init__(self, name: str, topics: list[str], handling: Handling, settings: Settings, lifecycle: Lifecycle) -> None:
        self.name = name
        self._topics = topics
        self._handling = handling
        self._settings = settings
        self._lifecycle = lifecycle
        self._consumer: AIOKafkaConsumer | None = None
        self._slots = asyncio.Semaphore(settings.worker.concurrency)
        self._progress: dict[TopicPartition, Progress] = defaultdict(Progress)
        self._lanes: dict[Lane, deque[ConsumerRecord]] = {}
        self._held: dict[TopicPartition, deque[ConsumerRecord]] = defaultdict(deque)
        self._tasks: dict[Lane, asyncio.Task[None]] = {}
        self._finished_since_commit = 0
        self._committed_at = time.monotonic()
        self._lag, self._oldest_due_s = 0, 0.0

    async def run(self) -> None:
        """Consume until the process stops; reconnect when Kafka goes away; finish what is in hand at the end."""
        while not self._lifecycle.stopping.is_set():
            try:
                await self._connect()
                while not self._lifecycle.stopping.is_set():
                    self._lifecycle.beat(self.name)
                    await self.run_once()
            except (KafkaError, OSError) as error:
                metrics.caught.labels("consumer").inc()
                log.warning("consumer.reconnecting", consumer=self.name, error=type(error).__name__)
                await self._disconnect()
                self._lifecycle.beat(self.name)
                await self._lifecycle.sleep(_RECONNECT_S)
        await self._finish()
        self._lifecycle.forget(self.name)

    async def run_once(self) -> None:
        """One turn: flow control, release due records, fetch, commit if it is time."""
        assert self._consumer is not None
        self._release_due()
        self._control_flow(self._consumer)
        room = max(1, self._settings.worker.buffer - self._waiting())
        batches: dict[TopicPartition, list[ConsumerRecord]] = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=room)
        for partition, records in batches.items():
            for record in records:
                self._accept(partition, record)
        self._measure(self._consumer)
        if self._finished_since_commit >= _COMMIT_RECORDS or time.monotonic() - self._committed_at >= _COMMIT_S:
            await self._commit()

    # -- taking records over

    def _accept(self, partition: TopicPartition, record: ConsumerRecord) -> None:
        self._progress[partition].begin(record.offset)
        if self._held[partition] or not_before_ms(record) > time.time() * 1000:
            self._held[partition].append(record)  # behind one that is not due: order by due time is the tier's own
        else:
            self._enqueue(partition, record)

    def _enqueue(self, partition: TopicPartition, record: ConsumerRecord) -> None:
        lane = (partition, record.key)
        if lane in self._lanes:
            self._lanes[lane].append(record)
            return
        self._lanes[lane] = deque([record])
        self._tasks[lane] = asyncio.create_task(self._run_lane(lane), name=f"{self.name}-lane")

    def _release_due(self) -> None:
        now_ms = time.time() * 1000
        for partition, held in self._held.items():
            while held and (due_ms := not_before_ms(held[0])) <= now_ms:
                metrics.tier_lateness.labels(self._handling.group).observe(max(0.0, (now_ms - due_ms) / 1000))
                self._enqueue(partition, held.popleft())

    async def _run_lane(self, lane: Lane) -> None:
        partition, records, progress = lane[0], self._lanes[lane], self._progress[lane[0]]
        try:
            while records:
                async with self._slots:
                    await self._handling.finish(records[0])
                # A rebalance may have replaced the partition's progress: then this result is nobody's business.
                if self._progress.get(partition) is not progress:
                    return
                progress.done(records.popleft().offset)
                self._finished_since_commit += 1
        finally:
            if self._lanes.get(lane) is records:
                del self._lanes[lane], self._tasks[lane]

    # -- flow control

    def _waiting(self) -> int:
        return sum(progress.unfinished for progress in self._progress.values())

    def _control_flow(self, consumer: AIOKafkaConsumer) -> None:
        assigned, paused = consumer.assignment(), consumer.paused()
        full = self._waiting() >= self._settings.worker.buffer or self._handling.gate.closed
        wanted = {p for p in assigned if full or self._held[p]}
        if wanted - paused:
            consumer.pause(*(wanted - paused))
        if (paused & assigned) - wanted:
            consumer.resume(*((paused & assigned) - wanted))

    def _measure(self, consumer: AIOKafkaConsumer) -> None:
        """Lag counts what is due: records held for later, and groups that pause, are not behind."""
        lag, oldest_ms = 0, time.time() * 1000
        for partition in consumer.assignment():
            progress, held = self._progress[partition], self._held[partition]
            lag += progress.unfinished - len(held)
            end = consumer.highwater(partition)
            if end is not None and progress.position is not None and not held:
                lag += max(0, end - progress.position)
        for lane in self._lanes.values():
            oldest_ms = min(oldest_ms, max(lane[0].timestamp, not_before_ms(lane[0]))) if lane else oldest_ms
        self._lag, self._oldest_due_s = lag, max(0.0, time.time() - oldest_ms / 1000)
        metrics.consumer_lag.labels(self.name).set(lag)
        metrics.consumer_oldest_due.labels(self.name).set(self._oldest_due_s)

    def condition(self) -> dict[str, float]:
        """For the overview: records due and unfinished, age of the oldest in seconds, 1 while paused."""
        return {"lag": self._lag, "oldest_due_s": round(self._oldest_due_s, 3), "paused": int(self._handling.gate.closed)}

    # -- offsets

    async def _commit(self) -> None:
        self._committed_at, self._finished_since_commit = time.monotonic(), 0
        offsets = {p: o for p, progress in self._progress.items() if (o := progress.take_committable()) is not None}
        if not offsets or self._consumer is None:
            return
        await failpoints.hit("after-commit-before-offset-commit")
        try:
            await self._consumer.commit(offsets)
        except KafkaError as error:
            # The partitions may be somebody else's by now; what was done is done, and the inbox knows it.
            metrics.caught.labels("commit").inc()
            log.warning("consumer.commit_failed", consumer=self.name, error=type(error).__name__)

    # -- coming and going

    async def _connect(self) -> None:
        if self._consumer is not None:
            return
        consumer = make_consumer(self._settings.kafka, group=self.name, client_id=f"plumbline-{self.name}")
        consumer.subscribe(topics=self._topics, listener=self)
        try:
            await consumer.start()
        except BaseException:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(consumer.stop(), _STOP_S)
            raise
        self._consumer = consumer

    async def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        await self._drop(set(self._progress))
        if consumer is not None:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(consumer.stop(), _STOP_S)

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Finish what runs (bounded), commit, and forget the partitions."""
        await self._settle(revoked)
        await self._commit()
        await self._drop(revoked)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Nothing to do: positions come from the committed offsets."""
        log.debug("consumer.assigned", consumer=self.name, partitions=len(assigned))

    async def _settle(self, partitions: set[TopicPartition]) -> None:
        """Let the record each lane is working on finish, within the drain time; queued ones are left."""
        running = []
        for lane, task in list(self._tasks.items()):
            if lane[0] in partitions:
                records = self._lanes[lane]
                while len(records) > 1:
                    records.pop()
                running.append(task)
        if running:
            await asyncio.wait(running, timeout=self._settings.worker.drain_timeout_s)

    async def _drop(self, partitions: set[TopicPartition]) -> None:
        for lane, task in list(self._tasks.items()):
            if lane[0] in partitions:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self._lanes.pop(lane, None)
                self._tasks.pop(lane, None)
        for partition in partitions:
            self._progress.pop(partition, None)
            self._held.pop(partition, None)

    async def _finish(self) -> None:
        await self._settle(set(self._progress))
        await self._commit()
        await self._disconnect()
