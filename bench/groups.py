"""What an event costs in each group, beside the raw SQL of its effect: `python -m bench.groups [blocks]` in a process of its own.

Records are made here and go through the real `Handling` (decode, handler, retry decision), without Kafka and with a
provider that answers at once; the floor is the effect alone, as few statements as do it, on a bare connection. Both work
in alternating blocks on orders of their own; CPU of this process and of the server's session, medians of ratios.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import orjson
import redis.asyncio
import uvloop
from aiokafka.structs import ConsumerRecord

from bench.cpu import cpu_ns
from bench.errors import BenchError
from bench.raw import PATIENT, connect
from bench.report import Report
from bench.servers import Rig, run_apart
from service.events import ORDERS_TOPIC, ce_headers
from service.foundation import log
from service.foundation.cache import Cache
from service.foundation.clock import SystemClock
from service.foundation.db import Database
from service.foundation.grouped import Jobs
from service.foundation.redis import RedisClient
from service.products.operations import Reservation, reserve
from service.settings import load_settings
from workers.handling import Context, Handling
from workers.main import GROUPS
from workers.sink import FileSink

_BLOCK: Final = 60
_STATES: Final = {"inventory": "placed", "payments": "reserved", "notifications": "paid", "timeline": "paid", "cache": "paid"}
_MAKE: Final = """
WITH made AS (SELECT gen_random_uuid() AS id, 3 + (n % 900) AS p FROM generate_series(1, $1) n),
o AS (INSERT INTO orders (id, customer_id, status, version, currency, total_minor, closed_at)
      SELECT id, 'bench', $2::text, 3, 'EUR', 1000, CASE WHEN $2::text = 'paid' THEN now() END FROM made),
l AS (INSERT INTO order_line (order_id, line_no, sku, quantity, unit_price_minor)
      SELECT id, 1, 'SKU-' || lpad(p::text, 4, '0'), 1, 1000 FROM made)
SELECT id, 'SKU-' || lpad(p::text, 4, '0') AS sku FROM made
"""
_CLAIM: Final = "INSERT INTO inbox (consumer, event_id) VALUES ('bench', $1) ON CONFLICT DO NOTHING"
_INTEND: Final = """
WITH o AS (SELECT id FROM orders WHERE id = $1 AND status = 'reserved' FOR NO KEY UPDATE)
INSERT INTO payment (id, order_id, kind, state, amount_minor, currency, idempotency_key)
SELECT gen_random_uuid(), id, 'charge', 'started', 1000, 'EUR', 'charge:' || id FROM o ON CONFLICT (idempotency_key) DO NOTHING
"""
_SETTLE: Final = """
WITH claim AS (INSERT INTO inbox (consumer, event_id) VALUES ('bench', $2) ON CONFLICT DO NOTHING RETURNING 1),
settled AS (UPDATE payment SET state = 'captured', updated_at = now() WHERE idempotency_key = 'charge:' || $1::uuid AND EXISTS (SELECT FROM claim)),
paid AS (UPDATE orders SET status = 'paid', version = version + 1, updated_at = now(), closed_at = now()
         WHERE id = $1 AND status = 'reserved' AND EXISTS (SELECT FROM claim) RETURNING version)
INSERT INTO outbox (event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers)
SELECT gen_random_uuid(), 'order', $1::uuid::text, version, 'order.paid', 'orders.events.v1', $1::uuid::text, $3, '{}' FROM paid
"""
_NOTE: Final = """
INSERT INTO order_timeline (order_id, version, type, at, detail) VALUES ($1, 3, 'order.paid', now(), '{}') ON CONFLICT DO NOTHING
"""
_FORGET: Final = """
local floor = tonumber(redis.call('GET', KEYS[2]) or '') or -1
redis.call('SET', KEYS[2], math.max(floor, tonumber(ARGV[1])), 'PX', 60000)
if (tonumber(redis.call('HGET', KEYS[1], 'v') or '') or -1) < tonumber(ARGV[1]) then redis.call('DEL', KEYS[1]) end
redis.call('DEL', KEYS[3])
"""


class Item(NamedTuple):
    """One order to work on."""

    id: Any
    sku: str


class Instant:
    """A provider that captures without a moment's thought: its time is nobody's cost here."""

    async def charge(self, *_: object) -> str:
        return "captured"

    void = refund = find = charge


Work = Callable[[Item], Awaitable[object]]


async def measure(blocks: int) -> dict[str, dict[str, float]]:
    """Group → its microseconds an event, the floor's, and the median of block ratios."""
    settings = load_settings()
    log.configure(settings.telemetry, process="bench-groups", version="0")  # a line an event, as a worker writes it
    db = Database(settings.db.model_copy(update={"pool_size": 1} | PATIENT), application="bench-groups", queue_timeout_ms=5_000)
    await db.open()
    bare, client = await connect(), redis.asyncio.from_url(settings.redis.url.get_secret_value())
    async with db.connection() as connection:
        sessions = [await connection.fetchval("SELECT pg_backend_pid()"), await bare.fetchval("SELECT pg_backend_pid()")]
    servers = [*sessions, int((await client.info("server"))["process_id"])]
    with tempfile.TemporaryDirectory() as folder:
        sink, cache = FileSink(Path(folder) / "sent.jsonl"), RedisClient(settings.redis)
        found = {}
        for group in GROUPS:
            context = Context(group, db, settings, Instant(), sink, Cache(cache), Jobs(db, size=1))  # type: ignore[arg-type]  # a provider that is instant
            handling = Handling(group, GROUPS[group], context, None, clock=SystemClock())  # type: ignore[arg-type]  # nothing is moved
            found[group] = await _compare(group, _through(handling, group), _floor(group, bare, client), bare, servers, blocks=blocks)
        await cache.close()
        await sink.close()
    await client.aclose()
    await bare.close()
    await db.close()
    return found


async def _compare(group: str, ours: Work, floor: Work, bare: Any, servers: list[int], *, blocks: int) -> dict[str, float]:
    costs: dict[str, list[float]] = {"group": [], "floor": []}
    for number in range(blocks + 1):
        for name, work in (("group", ours), ("floor", floor)) if number % 2 else (("floor", floor), ("group", ours)):
            items = [Item(*row) for row in await bare.fetch(_MAKE, _BLOCK, _STATES[group])]
            begin = time.process_time_ns() + cpu_ns(servers)
            for item in items:
                await work(item)
            costs[name].append((time.process_time_ns() + cpu_ns(servers) - begin) / 1000 / _BLOCK)
    ratios = [ours_us / floor_us for ours_us, floor_us in zip(costs["group"][1:], costs["floor"][1:], strict=True)]
    figures = {f"{name}_us": statistics.median(values[1:]) for name, values in costs.items()}  # the first block warms both
    return figures | {"ratio": statistics.median(ratios)}


def _through(handling: Handling, group: str) -> Work:
    kind = {"placed": "order.placed", "reserved": "order.reserved", "paid": "order.paid"}[_STATES[group]]

    async def finish(item: Item) -> None:
        body: dict[str, Any] = {"order_id": str(item.id), "customer_id": "bench", "total_minor": 1000, "currency": "EUR"}
        if kind == "order.placed":
            body["lines"] = [{"line_no": 1, "sku": item.sku, "quantity": 1, "unit_price_minor": 1000}]
        headers = ce_headers(event_id=uuid4(), event_type=kind, aggregate_id=str(item.id), version=3, at=SystemClock().now())
        encoded = tuple((name, value.encode()) for name, value in headers.items())
        value = orjson.dumps(body)
        record = ConsumerRecord(ORDERS_TOPIC, 0, 0, int(time.time() * 1000), 0, str(item.id).encode(), value, None, 36, len(value), encoded)
        outcome = await handling.finish(record)
        if outcome != "applied":
            raise BenchError(f"{group} answered {outcome} to {kind}: only applied events are measured")

    return finish


def _floor(group: str, bare: Any, client: Any) -> Work:
    """The effect alone."""

    async def inventory(item: Item) -> None:
        async with bare.transaction():
            await reserve(bare, [Reservation("bench", uuid4(), item.id, "bench", 1000, "EUR", [item.sku], [1])])

    async def payments(item: Item) -> None:
        await bare.execute(_INTEND, item.id)
        await bare.execute(_SETTLE, item.id, uuid4(), b"{}")

    async def notifications(_: Item) -> None:
        await bare.execute(_CLAIM, uuid4())

    async def timeline(item: Item) -> None:
        await bare.execute(_NOTE, item.id)

    script = client.register_script(_FORGET)

    async def cache(item: Item) -> None:
        await script(keys=[f"f:{{{item.id}}}", f"f:{{{item.id}}}:floor", f"f:{{{item.id}}}:lease"], args=[3])

    return {"inventory": inventory, "payments": payments, "notifications": notifications, "timeline": timeline, "cache": cache}[group]


def run_groups(rig: Rig, report: Report, blocks: int = 20) -> None:
    """Add every group's cost an event to the report."""
    for group, figures in run_apart(rig, "bench.groups", blocks).items():
        report.extra |= {
            f"{group}: CPU µs an event": figures["group_us"],
            f"{group}: raw SQL of its effect, µs": figures["floor_us"],
            f"{group}: ratio": figures["ratio"],
        }


if __name__ == "__main__":
    result = uvloop.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
    log.drain()
    print("\n" + json.dumps(result), flush=True)
