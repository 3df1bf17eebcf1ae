"""A broker of the tests' own, what is in its topics, and events to send through it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord

from service.dev.kafka import Broker, MemoryBroker, open_broker
from service.dev.roster import BrokerKind
from service.events import OrderPaid, ProductRestocked
from service.foundation.db import Database
from service.outbox import make_event, record
from service.settings import Settings, load_settings
from tests.support.servers import Servers
from workers.tiers import create_topics

KIND = cast("BrokerKind", os.environ.get("PLUMBLINE_TEST_KAFKA", "memory"))


@contextlib.contextmanager
def own_broker(servers: Servers) -> Iterator[tuple[Broker, Settings]]:
    """Started beside the session's servers, in memory or Apache Kafka (`PLUMBLINE_TEST_KAFKA`); the settings that name it."""
    folder = servers.home / "own-broker"
    folder.mkdir(exist_ok=True)
    made = open_broker(KIND, folder, servers.base_port + 106)
    patch = pytest.MonkeyPatch()
    patch.setenv("KAFKA_BOOTSTRAP", made.bootstrap)
    patch.setenv("APP_KAFKA_BROKER", "memory" if made.kind == "memory" else "kafka")
    settings = load_settings()
    patch.undo()
    made.start()
    try:
        if made.kind == "real":  # the in-memory one makes topics on first use
            asyncio.run(create_topics(settings))
        yield made, settings
    finally:
        made.stop()


def take_away(broker: Broker) -> None:
    """No answer any more: connections are refused (memory), or the process is killed (kill -9)."""
    if isinstance(broker, MemoryBroker):
        broker.control("down")
        return
    assert broker.process is not None
    broker.process.kill()
    broker.process.wait()


def bring_back(broker: Broker) -> None:
    """There again, with everything it had."""
    if isinstance(broker, MemoryBroker):
        broker.control("up")
    else:
        broker.start()


async def say(connection: Any, sku: str, version: int, *, padding: int = 0) -> UUID:
    """One event of a product, in the caller's transaction."""
    event = make_event("product.restocked", "product", sku, version, ProductRestocked(sku=sku, quantity=version))
    if padding:
        event = type(event)(**{n: getattr(event, n) for n in event.__slots__} | {"payload": event.payload + b" " * padding})
    await record(connection, event)
    return event.event_id


async def say_order(connection: Any, order_id: UUID, version: int) -> UUID:
    """One `order.paid` of an order that need not exist."""
    payload = OrderPaid(order_id=order_id, customer_id="c", total_minor=version, currency="EUR")
    event = make_event("order.paid", "order", str(order_id), version, payload)
    await record(connection, event)
    return event.event_id


async def read_topic(settings: Settings, topic: str) -> list[ConsumerRecord]:
    """Everything in a topic, by partition and offset."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=settings.kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        found: list[ConsumerRecord] = []
        async with asyncio.timeout(30):
            while len(found) < sum(ends.values()):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    found += records
    finally:
        await consumer.stop()
    return sorted(found, key=lambda one: (one.partition, one.offset))


def versions(records: list[ConsumerRecord]) -> dict[str, list[int]]:
    """Key → versions in the order of first delivery (and with repeats as they came)."""
    found: dict[str, list[int]] = defaultdict(list)
    for one in records:
        found[one.key.decode()].append(int(dict(one.headers)["ce_aggregateversion"]))
    return dict(found)


def event_ids(records: list[ConsumerRecord]) -> list[UUID]:
    return [UUID(dict(one.headers)["ce_id"].decode()) for one in records]


def first_deliveries(numbers: list[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


def fresh(prefix: str) -> str:
    """An aggregate nobody has spoken of."""
    return f"{prefix}-{uuid4().hex[:10]}"


async def count_outbox(db: Database, *aggregates: str) -> int:
    async with db.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM outbox WHERE aggregate_id = ANY ($1)", list(aggregates)))
