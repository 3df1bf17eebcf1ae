"""A group's consumer: fetch, run keys side by side and each key in order, commit the contiguous done prefix.

Nothing is committed before it is finished, so a kill at any moment only repeats work (the inbox absorbs it).
While the group is paused or full the loop keeps polling, or Kafka would take its partitions away. A retry
partition whose first record is not due yet is held, and sought back to that record.
Tests: tests/integration/test_consumer.py, tests/unit/test_worker_simulation.py, tests/stories.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from aiokafka import ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition

from service.foundation import failpoints, metrics
from service.foundation.clock import Clock, SystemClock
from service.foundation.lifecycle import Lifecycle
from service.foundation.log import get_logger
from service.settings import Settings
from workers import signals
from workers.envelope import not_before_ms
from workers.handling import Handling
from workers.lanes import Lanes
from workers.member import KafkaMember, Member

log = get_logger(__name__)

_POLL_S: Final = 0.2
_COMMIT_S: Final = 1.0
_MEASURE_S: Final = 0.5  # each look goes through all partitions, and nobody reads what it says more often
_COMMIT_RECORDS: Final = 500
_RECONNECT_S: Final = 1.0

Join = Callable[[ConsumerRebalanceListener], Member]


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of one group, reading `topics`; `name` is the group in Kafka and tells the loops apart in heartbeats."""

    def __init__(
        self,
        name: str,
        topics: list[str],
        handling: Handling,
        settings: Settings,
        lifecycle: Lifecycle,
        *,
        join: Join | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self._handling = handling
        self._settings = settings
        self._lifecycle = lifecycle
        self._clock = clock or SystemClock()
        self._join: Join = join or (lambda listener: KafkaMember(settings.kafka, group=name, topics=topics, listener=listener))
        self._member: Member | None = None
        self._lanes = Lanes(handling.finish, concurrency=settings.worker.concurrency, clock=self._clock)
        # Partition → Unix milliseconds at which its next record is due.
        self._due_ms: dict[TopicPartition, int] = {}
        self._committed_at = self._clock.monotonic()
        self._measured_at = float("-inf")
        self._lag, self._oldest_due_s = 0, 0.0
        gauges = (metrics.consumer_lag, metrics.consumer_oldest_due, metrics.consumer_paused, signals.stalled, signals.held_partitions)
        self._gauges = tuple(gauge.labels(name) for gauge in gauges)

    async def run(self) -> None:
        """Consume until the process stops; reconnect when Kafka goes away; finish what is in hand at the end."""
        while not self._lifecycle.stopping.is_set():
            self._lifecycle.beat(self.name)
            try:
                if await self._connect():
                    await self.run_once()
            except (KafkaError, OSError) as error:
                metrics.caught.labels("consumer").inc()
                log.warning("consumer.reconnecting", consumer=self.name, error=type(error).__name__)
                await self._disconnect()
                await self._lifecycle.sleep(_RECONNECT_S)
        await self._finish()
        self._lifecycle.forget(self.name)

    async def run_once(self) -> None:
        """One turn: flow control, fetch, commit if it is time. Raises what ended a lane unexpectedly."""
        assert self._member is not None
        self._lanes.raise_failure()
        self._control_flow(self._member)
        room = max(1, self._settings.worker.buffer - self._lanes.unfinished)
        batches = await self._member.fetch(room=room, timeout_s=self._patience_s())
        for partition, records in batches.items():
            self._accept(self._member, partition, records)
        if self._clock.monotonic() - self._measured_at >= _MEASURE_S:
            self._measure(self._member)
        if self._lanes.finished_since_commit >= _COMMIT_RECORDS or self._clock.monotonic() - self._committed_at >= _COMMIT_S:
            await self._commit()

    # -- taking records over

    def _accept(self, member: Member, partition: TopicPartition, records: Collection[ConsumerRecord]) -> None:
        """Take what is due; at the first record that is not, hold the partition and come back to it."""
        now_ms = self._now_ms()
        for record in records:
            due_ms = not_before_ms(record)
            if due_ms > now_ms:
                self._due_ms[partition] = due_ms
                member.seek(partition, record.offset)
                return
            if self._handling.ignores(record):
                self._lanes.skip(partition, record)
            else:
                self._lanes.take(partition, record)

    def _now_ms(self) -> float:
        return self._clock.now().timestamp() * 1000

    def _patience_s(self) -> float:
        """How long a fetch may wait: not beyond the moment a held partition is due."""
        if not self._due_ms:
            return _POLL_S
        return min(_POLL_S, max(0.005, (min(self._due_ms.values()) - self._now_ms()) / 1000))

    # -- flow control

    def _control_flow(self, member: Member) -> None:
        now_ms = self._now_ms()
        self._due_ms = {p: due_ms for p, due_ms in self._due_ms.items() if due_ms > now_ms}
        full = self._lanes.unfinished >= self._settings.worker.buffer or self._handling.paused
        member.hold(member.assignment() if full else self._due_ms)

    def _measure(self, member: Member) -> None:
        """Lag counts what is due: records held for later, and groups that pause, are not behind."""
        self._measured_at, lag = self._clock.monotonic(), 0
        for partition in member.assignment():
            lag += self._lanes.unfinished_of(partition)
            end, position = member.end(partition), self._lanes.position(partition)
            if end is not None and position is not None and partition not in self._due_ms:
                lag += max(0, end - position)
        now_ms = self._now_ms()
        oldest_ms = min((max(record.timestamp, not_before_ms(record)) for record in self._lanes.heads()), default=now_ms)
        since = None if self._handling.paused else self._lanes.waiting_since
        self._lag, self._oldest_due_s = lag, max(0.0, (now_ms - oldest_ms) / 1000)
        stalled_s = 0.0 if since is None else self._clock.monotonic() - since
        for gauge, value in zip(self._gauges, (lag, self._oldest_due_s, self._handling.paused, stalled_s, len(self._due_ms)), strict=True):
            gauge.set(value)

    def condition(self) -> dict[str, float]:
        """For the overview: records due and unfinished, age of the oldest in seconds, 1 while paused."""
        return {"lag": self._lag, "oldest_due_s": round(self._oldest_due_s, 3), "paused": int(self._handling.paused)}

    # -- offsets

    async def _commit(self) -> None:
        """Commit what is done. A failure loses nothing: it stays committable, or the next owner repeats it."""
        self._committed_at = self._clock.monotonic()
        if self._member is None or not (taken := self._lanes.take_committable()):
            return
        await failpoints.hit("after-commit-before-offset-commit")
        try:
            await self._member.commit({partition: offset for partition, (_, offset) in taken.items()})
        except (KafkaError, OSError) as error:
            self._lanes.give_back(taken)
            metrics.caught.labels("commit").inc()
            log.warning("consumer.commit_failed", consumer=self.name, error=type(error).__name__)

    # -- coming and going

    async def _connect(self) -> bool:
        """True when the group has given an assignment; False if the process is asked to stop meanwhile."""
        if self._member is not None:
            return True
        member = self._join(self)
        joined = False
        try:
            joined = await member.join(self._lifecycle.stopping)
        finally:
            if not joined:
                await member.leave()
        self._member = member if joined else None
        return joined

    async def _disconnect(self) -> None:
        member, self._member = self._member, None
        await self._forget(self._lanes.partitions())
        if member is not None:
            await member.leave()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Finish what runs (bounded: the group waits for us only one session), commit, and forget the partitions."""
        await self._settle(revoked, min(self._settings.worker.drain_timeout_s, self._settings.kafka.session_timeout_ms / 3000))
        await self._commit()
        await self._forget(revoked)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Nothing to do: positions come from the committed offsets."""
        log.debug("consumer.assigned", consumer=self.name, partitions=len(assigned))

    async def _settle(self, partitions: Collection[TopicPartition], timeout_s: float) -> None:
        # A paused group finishes nothing: waiting for it would only delay the end.
        await self._lanes.settle(partitions, timeout_s=0.0 if self._handling.paused else timeout_s)

    async def _forget(self, partitions: Collection[TopicPartition]) -> None:
        self._due_ms = {p: due_ms for p, due_ms in self._due_ms.items() if p not in partitions}
        await self._lanes.drop(partitions)

    async def _finish(self) -> None:
        await self._settle(self._lanes.partitions(), self._settings.worker.drain_timeout_s)
        await self._commit()
        await self._disconnect()
