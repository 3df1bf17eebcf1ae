"""What the two bare peers do, whatever their framework: the floor's one statement, and the floor's read, through asyncpg's pool."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson

from bench.floor_sql import PLACE_ORDER, READ_ORDER
from bench.peers import common

_SETTINGS = {"plan_cache_mode": "force_generic_plan", "random_page_cost": "1.1", "jit": "off"}


class Shop:
    """One pool; prices are read once, as the floor's are."""

    async def open(self) -> None:
        """Connect."""
        self._pool = await asyncpg.create_pool(common.DATABASE, min_size=common.POOL, max_size=common.POOL, server_settings=_SETTINGS, init=_teach)
        self._prices = {row["sku"]: row["price_minor"] for row in await self._pool.fetch("SELECT sku, price_minor FROM product")}

    async def place(self, body: bytes) -> tuple[int, bytes]:
        """(status, JSON)."""
        lines = orjson.loads(body)["lines"]
        skus, quantities = [line["sku"] for line in lines], [line["quantity"] for line in lines]
        prices = [self._prices[sku] for sku in skus]
        total = sum(price * quantity for price, quantity in zip(prices, quantities, strict=True))
        order_id, event_id = uuid4(), uuid4()
        answer = orjson.dumps({"id": order_id, "customer_id": "bare", "status": "placed", "version": 1, "total_minor": total, "lines": lines})
        values = ("bare", str(event_id), hashlib.sha256(body).digest(), answer, order_id, total, skus, quantities, prices, event_id, answer)
        return (201, answer) if await self._pool.fetchval(PLACE_ORDER, *values) == "created" else (409, b"{}")

    async def read(self, order_id: str) -> tuple[int, bytes]:
        """(status, JSON)."""
        row = await self._pool.fetchrow(READ_ORDER, UUID(order_id))
        return (404, b"{}") if row is None else (200, orjson.dumps({**row, "id": str(row["id"])}))


async def _teach(connection: Any) -> None:
    await connection.set_type_codec("json", schema="pg_catalog", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads)
