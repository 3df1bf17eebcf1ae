"""Gathers evidence from a stack: its tables, its topics, Redis, the provider's log, and the files clients wrote.

Read-only. What cannot be read ends the checker (exit 2): a promise judged on half of the evidence is not judged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import redis.asyncio as redis_py
from aiokafka import AIOKafkaConsumer

from tests.faults.checker.evidence import Evidence, Fault, Op, Row

_PROCESSES = frozenset({"api", "relay", "worker", "reaper"})
_TOPICS = ("orders.events.v1", "catalog.events.v1")
_EVENT = "event_id::text, aggregate_type, aggregate_id, version, type"
_QUERIES = {
    "orders": """SELECT o.id::text, o.customer_id, o.status, o.status_reason, o.version, o.currency, o.total_minor,
                 (SELECT json_agg(json_build_object('sku', l.sku, 'quantity', l.quantity, 'unit_price_minor', l.unit_price_minor))
                  FROM order_line l WHERE l.order_id = o.id)::text AS lines FROM orders o""",
    "stock": "SELECT sku, available FROM stock",
    "ledger": "SELECT ref_id::text, sku, kind, quantity FROM stock_ledger",
    "payments": "SELECT order_id::text, kind, state, amount_minor, idempotency_key FROM payment",
    "inbox": "SELECT consumer, event_id::text FROM inbox",
    "events": f"SELECT {_EVENT}, false AS sent FROM outbox UNION ALL SELECT {_EVENT}, true FROM outbox_sent",
    "timeline": "SELECT order_id::text, version FROM order_timeline",
    "dead_letters": "SELECT consumer, event_id::text, aggregate_id, status, error_class, error_message FROM dead_letter",
    "products": "SELECT sku, version FROM product",
}


async def collect(stack: dict[str, Any], home: Path, *, history: Path | None, faults: Path | None) -> Evidence:
    """Everything there is about the stack of `stack.json`, and the clients' files."""
    urls = stack["urls"]
    evidence = Evidence()
    await _tables(evidence, urls["database"])
    evidence.records = await _records(urls["kafka"])
    evidence.cache = await _cache(urls["redis"])
    evidence.logs = list(_log_lines(home / "logs"))
    # Notes of test customers, tokens (a JSON object in base64url), and the password of the database.
    evidence.secrets = ["canary-of-", "eyJ", *filter(None, [urlsplit(urls["database"]).password])]
    evidence.provider = list(_json_lines(home / "psp.jsonl"))
    evidence.operations = [Op(**row) for row in _json_lines(history)]
    evidence.faults = [Fault(**row) for row in _json_lines(faults)]
    return evidence


async def _tables(evidence: Evidence, url: str) -> None:
    connection = await asyncpg.connect(url, server_settings={"application_name": "checker"})
    try:
        # One snapshot: rows that refer to each other are read as of one moment.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for part, query in _QUERIES.items():
                setattr(evidence, part, [dict(row) for row in await connection.fetch(query)])
            keys = await connection.fetch("SELECT principal, key, status, body FROM idempotency_key")
    finally:
        await connection.close()
    for order in evidence.orders:
        order["lines"] = json.loads(order["lines"] or "[]")
    evidence.keys = [_key(row) for row in keys]


def _key(row: asyncpg.Record) -> Row:
    body = json.loads(row["body"])
    digest = hashlib.sha256(row["body"]).hexdigest()
    return {"principal": row["principal"], "key": row["key"], "status": row["status"], "answer_hash": digest, "order_id": body.get("id", "")}


async def _records(bootstrap: str) -> list[Row]:
    # Without a group, subscribing assigns every partition of the topics to this one reader.
    consumer = AIOKafkaConsumer(*_TOPICS, bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    found: list[Row] = []
    try:
        partitions = list(consumer.assignment())
        if not partitions:
            raise OSError(f"no partition of {', '.join(_TOPICS)} was found at {bootstrap}")
        ends = {p: end for p, end in (await consumer.end_offsets(partitions)).items() if end > 0}
        while ends:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [_record(record) for record in records]
            ends = {p: end for p, end in ends.items() if await consumer.position(p) < end}
    finally:
        await consumer.stop()
    return found


def _record(record: Any) -> Row:
    headers = {name: value.decode() for name, value in record.headers}
    return {
        "topic": record.topic, "partition": record.partition, "offset": record.offset, "event_id": headers["ce_id"],
        "type": headers["ce_type"], "aggregate_id": headers["ce_subject"], "version": int(headers["ce_aggregateversion"]),
    }  # fmt: skip


async def _cache(url: str) -> dict[str, int]:
    """Cached versions by "entity:id"; entries say "there is none" with version 0 and are left out."""
    client = redis_py.Redis.from_url(url, decode_responses=True)
    found: dict[str, int] = {}
    try:
        async for key in client.scan_iter("c1:{*}"):
            version = await client.hget(key, "v") if await client.type(key) == "hash" else None
            if version is not None and int(version) > 0:
                found[key[key.index("{") + 1 : key.index("}")]] = int(version)
    finally:
        await client.aclose()
    return found


def _log_lines(folder: Path) -> Iterable[Row]:
    """What the service's own processes wrote."""
    for log in sorted(folder.glob("*.log")):
        if log.stem.partition("-")[0] in _PROCESSES:
            for line in log.read_text(errors="replace").splitlines():
                yield {"process": log.stem, "line": line}


def _json_lines(path: Path | None) -> Iterable[Row]:
    if path is None:
        return
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: clients and the fault driver must write it before the checker reads it")
    for line in path.read_text().splitlines():
        yield json.loads(line)
