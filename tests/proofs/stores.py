"""The same order as rows, as a document and as a Redis value: what a read, a durable write and a question cost in each.

One connection, one call after the other, short rounds interleaved, the best of them (what else runs on the host can only make
a round slower); ratios to the rows in PostgreSQL are what counts.
`python -m tests.proofs stores` prints it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import redis.asyncio

from tests.support.servers import Servers

ORDERS, CALLS, ROUNDS = 1_000, 10, 40
_TABLES = """
CREATE TABLE s_order (id uuid PRIMARY KEY, customer text NOT NULL, seq bigint GENERATED ALWAYS AS IDENTITY, status text NOT NULL, total int NOT NULL);
CREATE TABLE s_line (order_id uuid REFERENCES s_order, no int, sku text, quantity int, PRIMARY KEY (order_id, no));
CREATE TABLE s_event (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id uuid, type text);
CREATE INDEX ON s_order (customer, seq DESC);
CREATE TABLE s_document (id uuid PRIMARY KEY, seq bigint GENERATED ALWAYS AS IDENTITY, body jsonb NOT NULL);
CREATE INDEX ON s_document ((body ->> 'customer'), seq DESC);
"""
_WRITE_ROWS = """
WITH o AS (INSERT INTO s_order (id, customer, status, total) VALUES ($1, $2, 'placed', 999)),
     l AS (INSERT INTO s_line VALUES ($1, 1, 'SKU-0001', 1))
INSERT INTO s_event (order_id, type) VALUES ($1, 'order.placed')
"""
_WRITE_DOCUMENT = "WITH d AS (INSERT INTO s_document (id, body) VALUES ($1, $2)) INSERT INTO s_event (order_id, type) VALUES ($1, 'order.placed')"
_READ_ROWS = "SELECT o.*, (SELECT json_agg(l) FROM s_line l WHERE l.order_id = o.id) AS lines FROM s_order o WHERE id = $1"
_PAGE_ROWS = "SELECT id, status, total FROM s_order WHERE customer = $1 ORDER BY seq DESC LIMIT 20"
_PAGE_DOCUMENTS = "SELECT id, body FROM s_document WHERE body ->> 'customer' = $1 ORDER BY seq DESC LIMIT 20"

Call = Callable[[int], Awaitable[Any]]


async def compare_stores(servers: Servers, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Question → store → µs a call (best round)."""
    postgres = await asyncpg.connect(servers.postgres.url)
    client = redis.asyncio.from_url(servers.redis.url)
    try:
        await postgres.execute(_TABLES)
        ids = [uuid4() for _ in range(ORDERS)]
        await _fill(postgres, client, ids)
        asked = _questions(postgres, client, ids)
        found = {question: await _measure(arms) for question, arms in asked.items()}
        found["write, durable"] |= await _durable(client)
    finally:
        await client.config_set("appendonly", "no")
        await client.aclose()
        await postgres.close()
    for question, arms in found.items():
        say(f"{question}: " + ", ".join(f"{store} {cost:.0f} µs" for store, cost in arms.items()))
    return found


async def _fill(postgres: Any, client: Any, ids: list[UUID]) -> None:
    for number, order_id in enumerate(ids):
        customer = f"c{number % 20}"
        await postgres.execute(_WRITE_ROWS, order_id, customer)
        await postgres.execute(_WRITE_DOCUMENT, order_id, _document(order_id, customer).decode())
        await client.set(f"o:{order_id}", _document(order_id, customer))
        await client.zadd(f"of:{customer}", {str(order_id): number})


def _document(order_id: UUID, customer: str) -> bytes:
    lines = [{"no": 1, "sku": "SKU-0001", "quantity": 1}]
    return orjson.dumps({"id": str(order_id), "customer": customer, "status": "placed", "total": 999, "lines": lines})


def _questions(postgres: Any, client: Any, ids: list[UUID]) -> dict[str, dict[str, Call]]:
    local = {order_id: _document(order_id, "c0") for order_id in ids}

    def one(number: int) -> UUID:
        return ids[number % ORDERS]

    async def own_process(number: int) -> bytes:
        return local[one(number)]

    async def page_of_redis(number: int) -> Any:
        return await client.mget([f"o:{name.decode()}" for name in await client.zrevrange(f"of:c{number % 20}", 0, 19)])

    return {
        "read one by key": {
            "rows": lambda n: postgres.fetchrow(_READ_ROWS, one(n)),
            "document": lambda n: postgres.fetchrow("SELECT body FROM s_document WHERE id = $1", one(n)),
            "Redis": lambda n: client.get(f"o:{one(n)}"),
            "own process": own_process,
        },
        "newest 20 of a customer": {
            "rows": lambda n: postgres.fetch(_PAGE_ROWS, f"c{n % 20}"),
            "document": lambda n: postgres.fetch(_PAGE_DOCUMENTS, f"c{n % 20}"),
            "Redis": page_of_redis,
        },
        "write, durable": {
            "rows": lambda n: postgres.execute(_WRITE_ROWS, uuid4(), f"c{n % 20}"),
            "document": lambda n: postgres.execute(_WRITE_DOCUMENT, new := uuid4(), _document(new, f"c{n % 20}").decode()),
        },
    }


async def _durable(client: Any) -> dict[str, float]:
    """The document, its place in the customer's list and its event in one MULTI, fsync at every write and once a second."""

    async def write(number: int) -> None:
        order_id, customer = uuid4(), f"c{number % 20}"
        pipe = client.pipeline(transaction=True)
        pipe.set(f"o:{order_id}", _document(order_id, customer)).zadd(f"of:{customer}", {str(order_id): time.time()})
        await pipe.xadd("events", {"id": str(order_id), "type": "order.placed"}).execute()

    await client.config_set("appendonly", "yes")
    found = {}
    for policy, name in (("always", "Redis, fsync always"), ("everysec", "Redis, fsync every second")):
        await client.config_set("appendfsync", policy)
        found |= await _measure({name: write})
    return found


async def _measure(arms: dict[str, Call]) -> dict[str, float]:
    costs: dict[str, list[float]] = {name: [] for name in arms}
    for round_ in range(ROUNDS):
        for name, call in arms.items():
            begin = time.perf_counter()
            for number in range(CALLS):
                await call(round_ * CALLS + number)
            costs[name].append((time.perf_counter() - begin) / CALLS * 1e6)
    return {name: round(min(values), 1) for name, values in costs.items()}
