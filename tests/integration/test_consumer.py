"""A consumer on a broker: each key in order, commits of the contiguous prefix only, poison parked, outages paused.

The seeds of tests/unit/test_worker_simulation.py try the unlikely; this is the same code on the wire.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from service.errors import DependencyUnavailable
from service.events import OrderPaid, ce_headers, dead_letter_topic, retry_topic
from service.foundation.cache import Cache
from service.foundation.db import Database
from service.foundation.kafka import apply_topics, make_producer
from service.foundation.lifecycle import Lifecycle
from service.foundation.redis import RedisClient
from service.settings import Settings
from tests.integration.broker_world import own_broker, read_topic
from tests.integration.facts import Facts
from tests.integration.waiting import until
from tests.support.servers import Servers
from workers.consumer import Consumer
from workers.envelope import Envelope, header_map
from workers.handling import Context, Handling
from workers.tiers import Mover

pytestmark = pytest.mark.broker

GROUP = "payments"
PARTITIONS = 4
Act = Callable[[Envelope], Awaitable[None]]


@pytest.fixture(scope="module")
def kafka(servers: Servers) -> Iterator[Settings]:
    with own_broker(servers) as (_, settings):
        yield settings


async def nothing(_: Envelope) -> None:
    await asyncio.sleep(0)


@dataclass
class Line:
    """One stream, its consumers, and what their handler saw: (key, version) in order."""

    settings: Settings
    db: Database
    topic: str = field(default_factory=lambda: f"orders.test-{uuid4().hex[:8]}")
    seen: list[tuple[str, int]] = field(default_factory=list)
    act: Act = nothing
    handling: Handling | None = None
    _ends: list[Callable[[], Awaitable[Any]]] = field(default_factory=list)

    async def send(self, *records: tuple[str, int], poison: bool = False) -> None:
        """(key, version) records, in this order."""
        producer = make_producer(self.settings.kafka, client_id="test")
        await producer.start()
        for key, version in records:
            order_id = UUID(int=abs(hash(key)))
            payload = OrderPaid(order_id=order_id, customer_id=key, total_minor=version, currency="EUR").model_dump_json().encode()
            headers = ce_headers(event_id=uuid4(), event_type="order.paid", aggregate_id=key, version=version, at=datetime.now(UTC))
            encoded = [(name, value.encode()) for name, value in headers.items()]
            await producer.send_and_wait(self.topic, value=b"{" if poison else payload, key=key.encode(), headers=encoded)
        await producer.stop()

    def start(self, *topics: str, name: str = "") -> tuple[Lifecycle, asyncio.Task[None]]:
        """A member of the group."""
        life, redis = Lifecycle(), RedisClient(self.settings.redis)
        context = Context(GROUP, self.db, self.settings, None, None, Cache(redis), None)  # type: ignore[arg-type]
        mover = Mover(self.settings.kafka, client_id="test-mover")
        self.handling = Handling(GROUP, {"order.paid": self._handle}, context, mover)
        consumer = Consumer(f"{self.topic}{name}", list(topics or (self.topic,)), self.handling, self.settings, life)
        task = asyncio.create_task(consumer.run())

        async def end() -> None:
            life.stop()
            await asyncio.wait({task}, timeout=30)
            await mover.close()
            await redis.close()

        self._ends.append(end)
        return life, task

    async def _handle(self, event: Envelope, _: Context) -> str:
        await self.act(event)
        self.seen.append((event.aggregate_id, event.version))
        return "applied"

    async def committed(self) -> dict[int, int]:
        """Partition → committed offset."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.settings.kafka.bootstrap, group_id=self.topic, enable_auto_commit=False)
        await consumer.start()
        partitions = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        found = {p.partition: await consumer.committed(p) or 0 for p in partitions}
        await consumer.stop()
        return found

    async def saw(self, count: int) -> None:
        await until(lambda: _at_least(self.seen, count), f"{count} records handled, {len(self.seen)} were")

    async def close(self) -> None:
        for end in self._ends:
            await end()


async def _at_least(seen: list[Any], count: int) -> bool:
    return len(seen) >= count


@pytest.fixture
async def line(kafka: Settings, db: Database) -> AsyncIterator[Line]:
    made = Line(kafka, db)
    if kafka.kafka.broker == "kafka":  # the in-memory one makes topics on first use
        names = (made.topic, retry_topic(made.topic, GROUP, 1), dead_letter_topic(made.topic, GROUP))
        await apply_topics(kafka.kafka, [(name, PARTITIONS, {}) for name in names])
    yield made
    await made.close()


def by_key(seen: list[tuple[str, int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for key, version in seen:
        found[key].append(version)
    return dict(found)


async def test_each_key_in_order_keys_side_by_side_everything_committed(line: Line) -> None:
    running, most = 0, 0

    async def act(_: Envelope) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    line.act = act
    await line.send(*((f"k{n}", version) for version in range(1, 11) for n in range(8)))
    life, task = line.start()
    await line.saw(80)
    assert by_key(line.seen) == {f"k{n}": list(range(1, 11)) for n in range(8)}
    assert most > 1, "keys do not wait for each other"
    life.stop()
    await asyncio.wait_for(task, 30)
    assert sum((await line.committed()).values()) == 80, "what was done is committed at the end"


async def test_a_commit_never_passes_an_unfinished_record(line: Line) -> None:
    release, slow = asyncio.Event(), ("k0", 1)

    async def act(event: Envelope) -> None:
        if (event.aggregate_id, event.version) == slow:
            await release.wait()

    line.act = act
    wanted = [(f"k{n}", version) for version in (1, 2, 3) for n in range(12)]
    await line.send(*wanted)
    _, task = line.start()
    await line.saw(36 - 3)
    assert "k0" not in by_key(line.seen), "its own key waits behind it"

    records = await read_topic(line.settings, line.topic)
    first = next(one for one in records if one.key == b"k0")
    ends = Counter(one.partition for one in records)

    async def others_committed() -> bool:
        return {p: o for p, o in (await line.committed()).items() if p != first.partition and o} == {
            p: end for p, end in ends.items() if p != first.partition
        }

    await until(others_committed, "the other partitions are committed to their ends")
    assert (await line.committed())[first.partition] <= first.offset
    task.cancel()  # as a kill: nothing is settled, nothing committed
    await asyncio.gather(task, return_exceptions=True)
    before, line.seen = line.seen, []
    release.set()
    line.start()
    await line.saw(3)
    await until(lambda: _all_again(line, before, wanted), "what was not committed is handled by the next owner")
    repeated = Counter(line.seen)
    assert by_key(line.seen)["k0"] == [1, 2, 3]
    assert max(repeated.values()) == 1


async def _all_again(line: Line, before: list[Any], wanted: list[Any]) -> bool:
    return set(before) | set(line.seen) == set(wanted)


async def test_poison_is_parked_and_its_neighbours_go_on(line: Line, facts: Facts) -> None:
    await line.send(("a", 1))
    await line.send(("a", 2), poison=True)
    await line.send(("a", 3), ("b", 1))
    life, task = line.start()
    await line.saw(3)
    assert by_key(line.seen) == {"a": [1, 3], "b": [1]}
    life.stop()
    await asyncio.wait_for(task, 30)
    assert sum((await line.committed()).values()) == 4
    (letter,) = await facts.rows("SELECT * FROM dead_letter WHERE topic = $1", line.topic)
    assert (letter["consumer"], letter["error_class"], letter["aggregate_id"], letter["version"]) == (GROUP, "Poison", "a", 2)
    assert (letter["payload"], letter["status"], letter["attempts"]) == (b"{", "open", 1)
    (dead,) = await read_topic(line.settings, dead_letter_topic(line.topic, GROUP))
    headers = header_map(dead.headers)
    assert (dead.key, dead.value) == (b"a", b"{")
    assert (headers["x-reason"], headers["x-origin-topic"], headers["ce_aggregateversion"]) == (b"poison", line.topic.encode(), b"2")


async def test_a_failing_record_goes_to_a_tier_and_is_not_tried_early(line: Line) -> None:
    calls: list[float] = []

    async def act(event: Envelope) -> None:
        if event.aggregate_id == "bad":
            calls.append(asyncio.get_running_loop().time())
            if len(calls) <= 3:
                raise RuntimeError("not today")

    line.act = act
    await line.send(("bad", 1), ("good", 1), ("good", 2))
    line.start()
    await line.saw(2)
    assert by_key(line.seen) == {"good": [1, 2]}
    await until(lambda: _at_least(calls, 3), "two tries in place after the first")
    tier = retry_topic(line.topic, GROUP, 1)
    line.start(tier, name=".retry")
    await line.saw(3)
    assert by_key(line.seen)["bad"] == [1]
    (moved,) = await read_topic(line.settings, tier)
    headers = header_map(moved.headers)
    assert (headers["x-attempt"], headers["x-reason"], headers["x-error-class"]) == (b"1", b"record", b"RuntimeError")
    # Tiers are ± 20 %; the first is 0.2 s in tests.
    assert calls[3] - calls[2] >= 0.16 - 0.01


async def test_an_outage_pauses_the_group_and_uses_no_attempt(line: Line, facts: Facts) -> None:
    away, asked = True, 0

    async def act(_: Envelope) -> None:
        nonlocal asked
        asked += 1
        if away:
            raise DependencyUnavailable("the database is not available")

    line.act = act
    await line.send(*((f"k{n}", 1) for n in range(6)))
    line.start()
    await until(lambda: _paused(line), "the group is paused")
    away = False
    await line.saw(6)
    assert by_key(line.seen) == {f"k{n}": [1] for n in range(6)}
    assert asked < 20, "paused, not hammering"
    assert await read_topic(line.settings, retry_topic(line.topic, GROUP, 1)) == []
    assert await facts.rows("SELECT FROM dead_letter WHERE topic = $1", line.topic) == []


async def _paused(line: Line) -> bool:
    return line.handling is not None and line.handling.gate.closed


async def test_two_members_share_and_one_that_dies_is_replaced(line: Line) -> None:
    await line.send(*((f"k{n}", 1) for n in range(12)))
    line.start()
    await line.saw(12)
    _, second = line.start()
    await line.send(*((f"k{n}", 2) for n in range(12)))
    await line.saw(24)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await line.send(*((f"k{n}", 3) for n in range(12)))
    await until(lambda: _every(line, 3), "the one that is left does all of it", deadline_s=60)
    assert {tuple(dict.fromkeys(found)) for found in by_key(line.seen).values()} == {(1, 2, 3)}


async def _every(line: Line, version: int) -> bool:
    return sum(1 for found in by_key(line.seen).values() if version in found) == 12
