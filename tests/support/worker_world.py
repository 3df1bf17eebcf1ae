"""A whole Kafka, a database and some worker processes in one virtual-time loop, with bad luck from one seed.

The consumer, its lanes, progress, gate, retry decisions and mover are the real ones; broker, group coordinator
and database are small models here. Every call to a model passes `Process.step` before and after its effect: there
a process may be killed (no `finally` reaches the outside any more), or stopped for longer than its session.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import orjson
from aiokafka.errors import CommitFailedError, KafkaConnectionError
from aiokafka.structs import ConsumerRecord, TopicPartition

from service.errors import DependencyUnavailable
from service.events import ORDERS_TOPIC, ce_headers, dead_letter_topic
from service.foundation.lifecycle import Lifecycle
from service.settings import Settings
from tests.support.virtual_time import EPOCH, VirtualClock
from workers import handling
from workers.consumer import Consumer
from workers.envelope import Envelope, header_map, origin_of
from workers.gate import DeadLetterBreaker
from workers.tiers import Mover, retry_topic

GROUP: Final = "payments"
PARTITIONS: Final = 3
SESSION_S: Final = 6.0
CHAOS_S: Final = 25.0
EVENTS, KEYS = 40, 8
_HANDLER_FAILS, _KILL, _STOP, _COMMIT_FAILS, _TWICE = 0.15, 0.004, 0.001, 0.05, 0.15
# One in eight of the events can never be handled.
_HOPELESS: Final = 8


class World:
    """Everything that outlives a process, and the seed's bad luck."""

    def __init__(self, seed: int, settings: Settings) -> None:
        self.random = random.Random(seed)
        self.settings = settings
        self.clock = VirtualClock()
        self.logs: dict[TopicPartition, list[ConsumerRecord]] = defaultdict(list)
        self.committed: dict[tuple[str, TopicPartition], int] = {}
        self.groups: dict[str, Group] = {}
        self.inbox: set[UUID] = set()
        self.effects: Counter[UUID] = Counter()
        self.dead: dict[tuple[str, int, int], UUID] = {}
        self.written: dict[UUID, int] = {}
        self.early: list[str] = []
        self.kills = self.stops = self.moves = self.rebalances = self.duplicates = 0
        self.tasks: set[asyncio.Task[Any]] = set()
        self.outages = sorted((at := self.random.uniform(0, CHAOS_S), at + self.random.uniform(0.2, 4)) for _ in range(2))

    @property
    def chaos(self) -> bool:
        return self.clock.monotonic() < CHAOS_S

    @property
    def infrastructure_is_away(self) -> bool:
        return any(begin <= self.clock.monotonic() < end for begin, end in self.outages)

    def spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        return task

    # -- the broker

    def append(self, topic: str, key: bytes, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        partition = TopicPartition(topic, sum(key) % PARTITIONS)
        log = self.logs[partition]
        log.append(ConsumerRecord(
            topic, partition.partition, len(log), int(self.clock.now().timestamp() * 1000), 0, key, value, None, len(key), 0, tuple(headers),
        ))  # fmt: skip

    async def relay(self) -> None:
        """Publish the events in random order across keys, some of them twice."""
        for number in range(EVENTS):
            event_id, key = UUID(int=number + 1), f"order-{number % KEYS}"
            headers = ce_headers(event_id=event_id, event_type="order.reserved", aggregate_id=key, version=number + 1, at=EPOCH)
            encoded = [(name, value.encode()) for name, value in headers.items()]
            self.written[event_id] = number
            for _ in range(1 + (self.random.random() < _TWICE)):
                self.append(ORDERS_TOPIC, key.encode(), _PAYLOAD, encoded)
            await asyncio.sleep(self.random.expovariate(EVENTS / (CHAOS_S * 0.6)))

    # -- how it ended

    def unfinished(self) -> list[str]:
        """What keeps the world from being quiet."""
        behind = [
            f"{group} is at {self.committed.get((group, p), 0)} of {len(log)} in {p.topic}-{p.partition}"
            for p, log in self.logs.items()
            for group in self.groups
            if (p.topic == ORDERS_TOPIC) == (group == GROUP) and p.topic != dead_letter_topic(ORDERS_TOPIC, GROUP)
            if self.committed.get((group, p), 0) < len(log)
        ]
        return behind + ([] if len(self.written) == EVENTS else ["not everything is published"])

    def violations(self) -> list[str]:
        """W1, W2, W3, in words."""
        parked = set(self.dead.values())
        lost = [f"lost: event {n}" for event, n in self.written.items() if event not in self.effects and event not in parked]
        lost += [f"lost: hopeless event {n} is not parked" for event, n in self.written.items() if n % _HOPELESS == 0 and event not in parked]
        double = [f"double: event {self.written[event]} took effect {times} times" for event, times in self.effects.items() if times > 1]
        return lost + double + self.early


_PAYLOAD: Final = orjson.dumps({"order_id": str(UUID(int=1)), "customer_id": "c", "total_minor": 1, "currency": "EUR"})


class Process:
    """One worker process; dead, it can do nothing any more."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.alive = True
        self.silent_since: float | None = None
        self.tasks: list[asyncio.Task[Any]] = []

    async def step(self) -> None:
        """Between any two effects: a little latency, and perhaps the end."""
        world = self.world
        self.require_alive()
        await asyncio.sleep(world.random.uniform(0, 0.02))
        if world.chaos and world.random.random() < _KILL:
            world.kills += 1
            self.kill()
        if world.chaos and self.silent_since is None and world.random.random() < _STOP:
            world.stops += 1
            self.silent_since = world.clock.monotonic()
            world.spawn(self._thaw(world.random.uniform(0.5, 2 * SESSION_S)))
        while self.alive and self.silent_since is not None:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.5)
        self.require_alive()

    async def _thaw(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.silent_since = None

    def require_alive(self) -> None:
        if not self.alive:
            raise asyncio.CancelledError

    def kill(self) -> None:
        self.alive = False
        for task in self.tasks:
            task.cancel()

    # -- what handlers use

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        await self.step()
        if self.world.infrastructure_is_away:
            raise DependencyUnavailable
        transaction = Transaction(self.world)
        yield transaction
        await self.step()
        transaction.commit()
        await self.step()

    # -- aiokafka's producer, as far as the mover uses it

    async def start(self) -> None:
        await self.step()

    async def stop(self) -> None: ...

    async def send_and_wait(self, topic: str, *, value: bytes, key: bytes, headers: list[tuple[str, bytes]]) -> None:
        await self.step()
        if self.world.infrastructure_is_away:
            raise KafkaConnectionError
        self.world.append(topic, key, value, headers)
        self.world.moves += 1
        await self.step()


class Transaction:
    """Claims and effects that become true together."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._effects: list[UUID] = []
        self._letters: list[tuple[tuple[str, int, int], UUID]] = []

    def apply(self, event_id: UUID) -> None:
        self._effects.append(event_id)

    def park(self, record: ConsumerRecord) -> None:
        origin = origin_of(record)
        self._letters.append(((origin.topic, origin.partition, origin.offset), UUID(header_map(record.headers)["ce_id"].decode())))

    def commit(self) -> None:
        for event_id in self._effects:
            if event_id in self._world.inbox:
                self._world.duplicates += 1
            else:
                self._world.inbox.add(event_id)
                self._world.effects[event_id] += 1
        self._world.dead.update(self._letters)


class WatchedHandling(handling.Handling):
    """The real one, with a witness who reads the due time from the record itself."""

    def __init__(self, process: Process, breaker: DeadLetterBreaker, mover: Mover) -> None:
        world = process.world

        async def parking(transaction: Transaction, _group: str, record: ConsumerRecord, _error: BaseException) -> None:
            transaction.park(record)

        context = handling.Context(GROUP, process, world.settings, process, None, None, None)  # type: ignore[arg-type]
        super().__init__(GROUP, {"order.reserved": _handle}, context, mover, breaker=breaker, clock=world.clock, parking=parking)
        self._world = world

    async def finish(self, record: ConsumerRecord) -> str:
        early_ms = int(header_map(record.headers).get("x-not-before-ms", b"0")) - self._world.clock.now().timestamp() * 1000
        if early_ms > 0:
            self._world.early.append(f"early: by {early_ms:.0f} ms")
        return await super().finish(record)


async def _handle(event: Envelope, context: handling.Context) -> str:
    process: Any = context.provider
    await process.step()
    if process.world.written[event.event_id] % _HOPELESS == 0 or process.world.random.random() < _HANDLER_FAILS:
        raise RuntimeError("the handler failed")
    async with context.db.transaction() as transaction:
        transaction.apply(event.event_id)  # type: ignore[attr-defined]
    return "applied"


class Group:
    """The coordinator of one group: who is a member, and who reads what."""

    def __init__(self, world: World, name: str, topics: list[str]) -> None:
        self.world, self.name = world, name
        self.partitions = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
        self.members: list[FakeMember] = []
        self.generation = 0
        self._changed = asyncio.Event()
        world.spawn(self._coordinate())
        world.spawn(self._watch())

    def changed(self) -> None:
        self._changed.set()

    async def _watch(self) -> None:
        """Members that are silent for a session are removed."""
        while True:
            await asyncio.sleep(0.5)
            gone = [member for member in self.members if member.silent_s() > SESSION_S or not member.process.alive]
            if gone:
                self.members = [member for member in self.members if member not in gone]
                self.changed()

    async def _coordinate(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            self.world.rebalances += 1
            self.generation += 1
            waiting = [self.world.spawn(member.prepare()) for member in self.members]
            if waiting:
                await asyncio.wait(waiting, timeout=SESSION_S)
            self.members = [member for member in self.members if member.prepared and member.process.alive]
            for number, member in enumerate(self.members):
                member.assign(self.generation, self.partitions[number :: len(self.members)])


class FakeMember:
    """A `Member` of a `Group`."""

    def __init__(self, process: Process, group: Group, listener: Any) -> None:
        self.process, self.group, self._listener = process, group, listener
        self._positions: dict[TopicPartition, int] = {}
        self._held: set[TopicPartition] = set()
        self._generation = -1
        self.prepared = False
        self._preparing = asyncio.Lock()
        self._left = False

    def silent_s(self) -> float:
        since = self.process.silent_since
        return 0.0 if since is None else self.process.world.clock.monotonic() - since

    async def prepare(self) -> None:
        """What aiokafka does before it joins again: revoke everything."""
        async with self._preparing:
            self.prepared = False
            while self.process.silent_since is not None:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.5)
            await self._listener.on_partitions_revoked(set(self._positions))
            self._positions = {}
            self.prepared = True

    def assign(self, generation: int, partitions: Collection[TopicPartition]) -> None:
        self._generation = generation
        self._positions = {p: self.process.world.committed.get((self.group.name, p), 0) for p in partitions}

    async def join(self, stopping: asyncio.Event) -> bool:
        await self.process.step()
        self.group.members.append(self)
        self.group.changed()
        return not stopping.is_set()

    async def fetch(self, *, room: int, timeout_s: float) -> Mapping[TopicPartition, Collection[ConsumerRecord]]:
        await self.process.step()
        if self not in self.group.members and not self._left:  # removed while it was silent
            await self.prepare()
            self.group.members.append(self)
            self.group.changed()
        found: dict[TopicPartition, list[ConsumerRecord]] = {}
        partitions = sorted(p for p in self._positions if p not in self._held) if self._generation == self.group.generation else []
        self.process.world.random.shuffle(partitions)
        for partition in partitions:
            position = self._positions[partition]
            records = self.process.world.logs[partition][position : position + room]
            if records:
                found[partition], room = records, room - len(records)
                self._positions[partition] = position + len(records)
            if room <= 0:
                break
        if not found:
            await asyncio.sleep(timeout_s)
        return found

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        world = self.process.world
        await self.process.step()
        if self._generation != self.group.generation and self not in self.group.members:
            raise CommitFailedError
        if not set(offsets) <= set(self._positions):
            raise CommitFailedError
        fails = world.random.random()
        if fails < _COMMIT_FAILS or world.infrastructure_is_away:
            raise KafkaConnectionError
        world.committed |= {(self.group.name, p): offset for p, offset in offsets.items()}
        await self.process.step()
        if fails < 2 * _COMMIT_FAILS:
            raise KafkaConnectionError  # it happened, and nobody knows

    async def leave(self) -> None:
        self._left = True
        if self in self.group.members:
            self.group.members.remove(self)
            self.group.changed()

    def assignment(self) -> Collection[TopicPartition]:
        return set(self._positions)

    def hold(self, wanted: Collection[TopicPartition]) -> None:
        self._held = set(wanted)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition in self._positions:
            self._positions[partition] = offset

    def end(self, partition: TopicPartition) -> int | None:
        return len(self.process.world.logs[partition])


async def run_world(seed: int, settings: Settings, *, limit_s: float = 400.0) -> World:
    """One life of the world: chaos, then calm until nothing is unfinished or `limit_s` have passed."""
    random.seed(seed)  # the jitter of the real code
    world = World(seed, settings)
    tiers = len(settings.worker.tiers_s)
    names = {GROUP: [ORDERS_TOPIC], f"{GROUP}.retry": [retry_topic(ORDERS_TOPIC, GROUP, n) for n in range(1, tiers + 1)]}
    world.groups = {name: Group(world, name, topics) for name, topics in names.items()}
    world.spawn(world.relay())
    for _ in range(2):
        world.spawn(_supervise(world))
    while world.unfinished() and world.clock.monotonic() < limit_s:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.5)
    for task in world.tasks:
        task.cancel()
    await asyncio.gather(*world.tasks, return_exceptions=True)
    return world


async def _supervise(world: World) -> None:
    """A worker process, started again a moment after it died."""
    while True:
        process = Process(world)
        breaker, mover = DeadLetterBreaker(GROUP, clock=world.clock), Mover(world.settings.kafka, client_id="mover", make=lambda *_, **__: process)  # noqa: B023 - called before the next one is made
        lifecycle = Lifecycle()
        for name, group in world.groups.items():
            consumer = Consumer(
                name, [], WatchedHandling(process, breaker, mover), world.settings, lifecycle,
                join=lambda listener, group=group: FakeMember(process, group, listener), clock=world.clock,  # noqa: B023 - called before the next one is made
            )  # fmt: skip
            process.tasks.append(asyncio.get_running_loop().create_task(consumer.run()))
        try:
            await asyncio.wait(process.tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            process.kill()
        for ended in await asyncio.gather(*process.tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
        await asyncio.sleep(world.random.uniform(0.2, 1.5))
