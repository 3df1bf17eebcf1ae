"""An order through the cache: what is cached is its JSON, by id, with its version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from service.foundation.cache import Cache, Entry, Peeks
from service.foundation.db import Database
from service.orders.operations import find_orders
from service.orders.schemas import encode, present_order


async def read_order(cache: Cache, db: Database, order_id: str, *, peeks: Peeks | None) -> Entry:
    """The cached or freshly loaded order; `exists` is False for none."""

    if (hit := cache.fresh(("order", order_id), peeks)) is not None:
        return hit

    async def load(ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        async with db.connection() as connection:
            rows = await find_orders(connection, [UUID(item) for item in ids])
        return {str(row["id"]): (row["version"], encode(present_order(row, row["lines"]))) for row in rows}

    return (await cache.read("order", [order_id], load, peeks=peeks))[order_id]
