"""What an event costs on its way to Kafka: `python -m bench.outbox [blocks]` in a process of its own, under the rig's environment.

WAL of PostgreSQL and CPU of its session for the ways to leave an event behind: the row alone; the row written and deleted
at once, as change data capture wants it; the row, then the relay's move; and the row with a shard's column and index.
Beside it the relay's own turn (read, send, move) against sending the same bytes. Blocks take turns; medians.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import uuid4

import orjson
import uvloop

from bench.cpu import cpu_ns
from bench.errors import BenchError
from bench.raw import PATIENT, TOPIC, connect
from service.events import ORDERS_TOPIC, PARTITIONS, ce_headers
from service.foundation import log
from service.foundation.clock import SystemClock
from service.foundation.db import Database
from service.foundation.kafka import apply_topics, make_producer
from service.foundation.lifecycle import Lifecycle
from service.settings import Settings, load_settings
from workers import relay
from workers.relay import Relay
from workers.tiers import create_topics

_BLOCK: Final = 200
_COLUMNS: Final = "event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers"
_WRITE: Final = f"""
INSERT INTO {{table}} ({_COLUMNS}) VALUES ($1, 'order', $2, 1, 'order.placed', 'orders.events.v1', $2, $3, '{{{{}}}}') RETURNING seq
"""
# As docs/adr/0206 has it.
_SHARDED: Final = """
CREATE TABLE IF NOT EXISTS outbox_sharded (LIKE outbox INCLUDING ALL, shard smallint GENERATED ALWAYS AS (abs(hashtext(aggregate_id)) % 64) STORED);
CREATE INDEX IF NOT EXISTS outbox_sharded_shard ON outbox_sharded (shard, seq)
"""
_WAL: Final = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
Way = Callable[[Any], Awaitable[None]]


async def _write(bare: Any, table: str = "outbox", *, then_delete: bool = False) -> list[int]:
    """One transaction an event, as orders are placed."""
    sequence = []
    for _ in range(_BLOCK):
        async with bare.transaction() if then_delete else contextlib.nullcontext():
            sequence.append(await bare.fetchval(_WRITE.format(table=table), uuid4(), str(uuid4()), _payload()))
            if then_delete:
                await bare.execute(f"DELETE FROM {table} WHERE seq = $1", sequence[-1])
    return sequence


async def _row(bare: Any) -> None:
    await _write(bare)


async def _row_deleted_at_once(bare: Any) -> None:
    await _write(bare, then_delete=True)


async def _row_moved(bare: Any) -> None:
    await bare.execute(relay._MOVE, await _write(bare), relay._KEPT)  # noqa: SLF001 - the statement itself is what is measured


async def _row_with_shard(bare: Any) -> None:
    await _write(bare, "outbox_sharded")


_WAYS: Final[dict[str, Way]] = {"row": _row, "deleted": _row_deleted_at_once, "moved": _row_moved, "sharded": _row_with_shard}


async def measure(blocks: int) -> dict[str, float]:
    """Figures by name: bytes of WAL and µs of CPU an event, and ratios to the row alone or to raw sending."""
    settings = load_settings()
    log.configure(settings.telemetry, process="bench-outbox", version="0")
    bare = await connect()
    await bare.execute("SET synchronous_commit = off")  # bytes and CPU are the same, and nobody waits for the disk
    await bare.execute(_SHARDED)
    ways = await _compare_ways(bare, blocks)
    sends = await _compare_sends(settings, bare, blocks)
    await bare.close()
    return ways | sends


async def _compare_ways(bare: Any, blocks: int) -> dict[str, float]:
    session = [await bare.fetchval("SELECT pg_backend_pid()")]
    wal: dict[str, list[float]] = {name: [] for name in _WAYS}
    cpu: dict[str, list[float]] = {name: [] for name in _WAYS}
    for number in range(blocks + 1):
        for name, way in list(_WAYS.items())[:: 1 if number % 2 else -1]:
            await bare.execute("TRUNCATE outbox")
            written, spent = await bare.fetchval(_WAL), cpu_ns(session)
            await way(bare)
            wal[name].append((await bare.fetchval(_WAL) - written) / _BLOCK)
            cpu[name].append((cpu_ns(session) - spent) / 1000 / _BLOCK)
    figures = {f"{name}: WAL bytes": statistics.median(values[1:]) for name, values in wal.items()}  # the first block warms
    figures |= {f"{name}: session CPU µs": statistics.median(values[1:]) for name, values in cpu.items()}
    for what, series in (("WAL", wal), ("CPU", cpu)):
        for name in ("deleted", "moved", "sharded"):
            figures[f"{name} ÷ row, {what}"] = statistics.median(a / b for a, b in zip(series[name][1:], series["row"][1:], strict=True))
    return figures


async def _compare_sends(settings: Settings, bare: Any, blocks: int) -> dict[str, float]:
    """The relay's turn and its share in PostgreSQL, against the same records sent by a bare producer."""
    await create_topics(settings)
    if settings.kafka.broker == "kafka":
        await apply_topics(settings.kafka, [(TOPIC, PARTITIONS[ORDERS_TOPIC], {})])
    db = Database(settings.db.model_copy(update={"pool_size": 1} | PATIENT), application="bench-relay", queue_timeout_ms=5_000)
    await db.open()
    async with db.connection() as connection:
        session = [await connection.fetchval("SELECT pg_backend_pid()")]
    turning, producer = Relay(settings, db, Lifecycle()), make_producer(settings.kafka, client_id="bench-raw")
    await producer.start()
    costs: dict[str, list[float]] = {"relay": [], "raw": []}
    for number in range(blocks + 1):
        for name in ("relay", "raw") if number % 2 else ("raw", "relay"):
            await bare.execute("TRUNCATE outbox")
            await _write(bare)
            records = await bare.fetch(f"SELECT {_COLUMNS} FROM outbox")
            begin = time.process_time_ns() + cpu_ns(session)
            await (_turn(turning) if name == "relay" else _send(producer, records))
            costs[name].append((time.process_time_ns() + cpu_ns(session) - begin) / 1000 / _BLOCK)
    await producer.stop()
    await turning._publisher.stop()  # noqa: SLF001 - as the end of its own loop does
    await db.close()
    ratio = statistics.median(a / b for a, b in zip(costs["relay"][1:], costs["raw"][1:], strict=True))
    return {f"{name}: CPU µs an event": statistics.median(values[1:]) for name, values in costs.items()} | {"relay ÷ raw, CPU": ratio}


async def _turn(turning: Relay) -> None:
    if (moved := await turning.run_once()) != _BLOCK:
        raise BenchError(f"a turn of the relay moved {moved} of {_BLOCK} events: is Kafka there?")


async def _send(producer: Any, records: list[Any]) -> None:
    futures = []
    for row in records:
        headers = ce_headers(event_id=row["event_id"], event_type=row["type"], aggregate_id=row["aggregate_id"], version=1, at=SystemClock().now())
        encoded = [(name, value.encode()) for name, value in headers.items()]
        futures.append(await producer.send(TOPIC, value=row["payload"], key=row["key"].encode(), headers=encoded))
    await asyncio.gather(*futures)


def _payload() -> bytes:
    line = {"line_no": 1, "sku": "SKU-0003", "quantity": 1, "unit_price_minor": 1000}
    return orjson.dumps({"order_id": str(uuid4()), "customer_id": "bench", "total_minor": 1000, "currency": "EUR", "lines": [line]})


if __name__ == "__main__":
    found = uvloop.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
    log.drain()
    print("\n" + json.dumps(found), flush=True)
