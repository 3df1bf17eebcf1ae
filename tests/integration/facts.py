"""What the tables say: counted, compared and prepared by tests that must not trust the API's own answers."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import httpx
from asyncpg import Record

from service.foundation.db import Database

TABLES = (
    "product", "stock", "stock_ledger", "orders", "order_line", "idempotency_key", "outbox", "outbox_sent",
    "inbox", "payment", "order_timeline", "dead_letter", "audit_log",
)  # fmt: skip
_numbers = itertools.count(1)
_RUN = secrets.token_hex(2).upper()
_ADD = """
WITH p AS (INSERT INTO product (sku, name, price_minor, currency, active) VALUES ($1, $1, $2, $3, $4)),
     s AS (INSERT INTO stock (sku, available) SELECT $1, $5)
INSERT INTO stock_ledger (ref_id, sku, kind, quantity) SELECT gen_random_uuid(), $1, 'seed', $5 WHERE $5 > 0
"""
_EVENTS = """
SELECT type, version, payload, event_id, headers, created_at FROM outbox WHERE aggregate_id = $1
UNION ALL
SELECT type, version, payload, event_id, headers, created_at FROM outbox_sent WHERE aggregate_id = $1
ORDER BY version, created_at
"""


class Facts:
    """Reads (and prepares) rows behind the API's back."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def rows(self, sql: str, *values: Any) -> list[Record]:
        async with self.db.connection() as connection:
            found: list[Record] = await connection.fetch(sql, *values)
        return found

    async def value(self, sql: str, *values: Any) -> Any:
        async with self.db.connection() as connection:
            return await connection.fetchval(sql, *values)

    async def run(self, sql: str, *values: Any) -> None:
        async with self.db.connection() as connection:
            await connection.execute(sql, *values)

    async def add_product(self, *, price_minor: int = 1_000, currency: str = "EUR", active: bool = True, pieces: int = 1_000_000) -> str:
        """A product nobody has heard of yet; answers its SKU."""
        sku = f"T{_RUN}-{next(_numbers):05d}"
        await self.run(_ADD, sku, price_minor, currency, active, pieces)
        return sku

    async def counts(self) -> dict[str, int]:
        """Rows of every table: the whole of what could have been written."""
        columns = ", ".join(f"(SELECT count(*) FROM {name}) AS {name}" for name in TABLES)
        return dict((await self.rows(f"SELECT {columns}"))[0])

    async def order(self, order_id: str | UUID) -> Record:
        return (await self.rows("SELECT * FROM orders WHERE id = $1", UUID(str(order_id))))[0]

    async def events(self, aggregate_id: str | UUID) -> list[tuple[str, int]]:
        """(type, version) of everything that was said about it, by version."""
        return [(row["type"], row["version"]) for row in await self.event_rows(aggregate_id)]

    async def event_rows(self, aggregate_id: str | UUID) -> list[Record]:
        return await self.rows(_EVENTS, str(aggregate_id))

    async def stock(self, sku: str) -> int:
        return int(await self.value("SELECT available FROM stock WHERE sku = $1", sku))

    async def assert_orders_are(self, customer: str, answers: Iterable[httpx.Response]) -> None:
        """I1, I2, I4: the customer's rows are exactly the distinct 201s given to him, byte for byte."""
        given = {json.loads(answer.content)["id"]: answer.content for answer in answers}
        rows = await self.rows(
            "SELECT o.*, (SELECT json_agg(json_build_object('line_no', l.line_no, 'sku', l.sku, 'quantity', l.quantity,"
            " 'unit_price_minor', l.unit_price_minor) ORDER BY l.line_no) FROM order_line l WHERE l.order_id = o.id) AS lines,"
            " (SELECT array_agg(k.body) FROM idempotency_key k WHERE k.headers->>'location' = '/v1/orders/' || o.id) AS stored"
            " FROM orders o WHERE o.customer_id = $1",
            customer,
        )
        assert {str(row["id"]) for row in rows} == set(given), "orders in the database and orders answered differ"
        for row in rows:
            answer = json.loads(given[str(row["id"])])
            columns = ("customer_id", "currency", "total_minor", "note")
            assert {name: row[name] for name in columns} == {name: answer[name] for name in columns}
            assert row["lines"] == answer["lines"]
            assert row["total_minor"] == sum(line["quantity"] * line["unit_price_minor"] for line in row["lines"])
            assert row["stored"] == [given[str(row["id"])]], "one stored answer, the bytes that were sent"
            assert (await self.events(row["id"]))[0] == ("order.placed", 1)
            assert len(await self.events(row["id"])) == row["version"], "G5: version = number of events"
