"""The pipeline's floors, each in a process of its own: raw produce, raw consume, and reserving one by one.

`python -m bench.raw produce|consume|reserve N` prints events a second. `produce` sends what is in `outbox_sent`, with
the relay's own producer settings; `reserve` runs the group's SQL for the newest N placed orders on one connection.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any, Final
from uuid import uuid4

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer

from service.events import ORDERS_TOPIC, PARTITIONS, ce_headers
from service.foundation.kafka import apply_topics, make_producer
from service.products.operations import Reservation, reserve
from service.settings import load_settings

TOPIC: Final = "bench.raw"
# On a busy host a statement may wait for a core longer than a request may wait for it.
PATIENT: Final = {"command_timeout_ms": 60_000, "statement_timeout_ms": 60_000, "lock_timeout_ms": 30_000}
_ROWS: Final = "SELECT event_id, type, aggregate_id, version, key, payload, created_at FROM outbox_sent ORDER BY seq LIMIT $1"
_PLACED: Final = """
SELECT o.id, o.customer_id, o.total_minor, o.currency, array_agg(l.sku) AS skus, array_agg(l.quantity) AS quantities
FROM orders o JOIN order_line l ON l.order_id = o.id WHERE o.status = 'placed' AND o.customer_id = 'reserve' GROUP BY o.id LIMIT $1
"""


async def connect() -> Any:
    """One bare connection, with the settings the service gives its sessions."""
    settings = {"plan_cache_mode": "force_generic_plan", "random_page_cost": "1.1", "jit": "off"}
    connection = await asyncpg.connect(os.environ["DATABASE_URL"], ssl=False, server_settings=settings)
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads)
    return connection


async def produce(count: int) -> float:
    """Send `count` events' bytes and wait for all acknowledgements."""
    connection = await connect()
    rows = await connection.fetch(_ROWS, count)
    settings = load_settings().kafka
    if settings.broker == "kafka":  # the in-memory broker makes topics on first use
        await apply_topics(settings, [(TOPIC, PARTITIONS[ORDERS_TOPIC], {})])
    producer = make_producer(settings, client_id="bench-raw")
    await producer.start()
    await producer.send_and_wait(TOPIC, b"warm")
    begin = time.perf_counter()
    futures = []
    for row in rows:
        headers = ce_headers(event_id=row["event_id"], event_type=row["type"], aggregate_id=row["aggregate_id"], version=1, at=row["created_at"])
        encoded = [(name, value.encode()) for name, value in headers.items()]
        futures.append(await producer.send(TOPIC, value=row["payload"], key=row["key"].encode(), headers=encoded))
    await asyncio.gather(*futures)
    taken = time.perf_counter() - begin
    await producer.stop()
    return len(rows) / taken


async def consume(count: int) -> float:
    """Read `count` records with a bare consumer."""
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=os.environ["KAFKA_BOOTSTRAP"], group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    begin, seen = time.perf_counter(), 0
    while seen < count:
        batches = await consumer.getmany(timeout_ms=5_000)
        seen += sum(map(len, batches.values()))
        if not batches:
            break
    taken = time.perf_counter() - begin
    await consumer.stop()
    return seen / taken


async def reserve_each(count: int) -> float:
    """One transaction an order: the group's effect without Kafka and without a framework."""
    connection = await connect()
    wanted = [
        Reservation("bench", uuid4(), row["id"], row["customer_id"], row["total_minor"], row["currency"], row["skus"], row["quantities"])
        for row in await connection.fetch(_PLACED, count)
    ]
    begin = time.perf_counter()
    for reservation in wanted:
        async with connection.transaction():
            await reserve(connection, [reservation])
    return len(wanted) / (time.perf_counter() - begin)


if __name__ == "__main__":
    import uvloop

    work = {"produce": produce, "consume": consume, "reserve": reserve_each}[sys.argv[1]]
    print(uvloop.run(work(int(sys.argv[2]))))
