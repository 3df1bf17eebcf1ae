"""The records a member has in hand: keys side by side, each key in order, and how far every partition is done.

A lane is one key of one partition. Nothing here knows Kafka: records come in, offsets that may be committed come
out. When this is wrong a record is lost or a partition stands still: tests/unit/test_worker_simulation.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from aiokafka.structs import ConsumerRecord, TopicPartition

from service.foundation.clock import Clock
from workers.progress import Progress

Lane = tuple[TopicPartition, bytes | None]
Taken = dict[TopicPartition, tuple[Progress, int]]
_NEVER: Final = float("inf")


class Lanes:
    """Hands each record to `finish` once, at most `concurrency` at a time."""

    def __init__(self, finish: Callable[[ConsumerRecord], Awaitable[object]], *, concurrency: int, clock: Clock) -> None:
        self._finish = finish
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
        self._progress: dict[TopicPartition, Progress] = {}
        self._queues: dict[Lane, deque[ConsumerRecord]] = {}
        self._tasks: dict[Lane, asyncio.Task[None]] = {}
        self._failure: BaseException | None = None
        self.finished_since_commit = 0

    @property
    def unfinished(self) -> int:
        """Records taken and not passed by a committable prefix."""
        return sum(progress.unfinished for progress in self._progress.values())

    @property
    def waiting_since(self) -> float | None:
        """Monotonic seconds when the record that holds back its partition longest was taken."""
        since = min((p.waiting_since for p in self._progress.values() if p.waiting_since is not None), default=_NEVER)
        return None if since == _NEVER else since

    def heads(self) -> list[ConsumerRecord]:
        """The record each lane is at."""
        return [queue[0] for queue in self._queues.values() if queue]

    def position(self, partition: TopicPartition) -> int | None:
        """The offset after the last record taken of a partition."""
        progress = self._progress.get(partition)
        return None if progress is None else progress.position

    def unfinished_of(self, partition: TopicPartition) -> int:
        """As `unfinished`, for one partition."""
        progress = self._progress.get(partition)
        return 0 if progress is None else progress.unfinished

    def take(self, partition: TopicPartition, record: ConsumerRecord) -> None:
        """Take a record over; offsets of a partition must rise."""
        self._progress.setdefault(partition, Progress()).begin(record.offset, self._clock.monotonic())
        lane = (partition, record.key)
        if lane in self._queues:
            self._queues[lane].append(record)
            return
        self._queues[lane] = queue = deque([record])
        self._tasks[lane] = asyncio.create_task(self._run(lane, queue, self._progress[partition]), name="lane")

    def skip(self, partition: TopicPartition, record: ConsumerRecord) -> None:
        """A record nothing is to be done about: finished as soon as those before it are."""
        progress = self._progress.setdefault(partition, Progress())
        progress.begin(record.offset, self._clock.monotonic())
        progress.done(record.offset)
        self.finished_since_commit += 1

    def raise_failure(self) -> None:
        """Raise what ended a lane that must never end by an error: its records would wait for ever."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    # -- offsets

    def take_committable(self) -> Taken:
        """Partition → (its progress, the offset to commit), each once."""
        self.finished_since_commit = 0
        return {p: (progress, o) for p, progress in self._progress.items() if (o := progress.take_committable()) is not None}

    def give_back(self, taken: Taken) -> None:
        """The commit failed: what is still ours stays committable."""
        for partition, (progress, offset) in taken.items():
            if self._progress.get(partition) is progress:
                progress.give_back(offset)

    # -- going away

    async def settle(self, partitions: Collection[TopicPartition], *, timeout_s: float) -> None:
        """Let the record each lane is at finish, within `timeout_s`; queued ones are left to the next owner."""
        running = []
        for lane, task in self._tasks.items():
            if lane[0] in partitions:
                while len(self._queues[lane]) > 1:
                    self._queues[lane].pop()
                running.append(task)
        if running:
            await asyncio.wait(running, timeout=timeout_s)

    async def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Forget the partitions: their lanes are cut off, and what they still finish is nobody's business."""
        for partition in partitions:
            self._progress.pop(partition, None)
        ended = []
        for lane in [lane for lane in self._tasks if lane[0] in partitions]:
            task = self._tasks.pop(lane)
            del self._queues[lane]
            task.cancel()
            ended.append(task)
        await asyncio.gather(*ended, return_exceptions=True)

    def partitions(self) -> set[TopicPartition]:
        """Those with anything known about them."""
        return set(self._progress)

    async def _run(self, lane: Lane, queue: deque[ConsumerRecord], progress: Progress) -> None:
        try:
            while queue:
                async with self._slots:
                    await self._finish(queue[0])
                progress.done(queue.popleft().offset)
                self.finished_since_commit += 1
        except Exception as error:  # noqa: BLE001 - kept for the consumer's loop, which ends the process
            self._failure = error
        finally:
            # After a drop the lane may be another one's by now.
            if self._queues.get(lane) is queue:
                with contextlib.suppress(KeyError):
                    del self._queues[lane], self._tasks[lane]
