"""Products through the cache: for the catalogue pages, and for the prices an order is worded with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from service.foundation.cache import Cache, Entry, Load, Peeks
from service.foundation.db import Database
from service.products.operations import find_products
from service.products.schemas import present_product


async def read_product(cache: Cache, db: Database, sku: str, *, peeks: Peeks | None) -> Entry:
    """The cached or freshly loaded product; `exists` is False for none."""
    hit = cache.fresh(("product", sku), peeks)
    return hit if hit is not None else (await cache.read("product", [sku], _loader(db), peeks=peeks))[sku]


async def cached_products(cache: Cache, db: Database, skus: Sequence[str], *, peeks: Peeks | None) -> Mapping[str, Mapping[str, Any]]:
    """SKU → what this process believes; the create's statement checks it against the catalogue."""
    entries = await cache.read("product", skus, _loader(db), peeks=peeks)
    return {sku: entry.value for sku, entry in entries.items() if entry.exists}


def _loader(db: Database) -> Load:
    async def load(skus: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        async with db.connection() as connection:
            rows = await find_products(connection, skus)
        return {sku: (row["version"], orjson.dumps(present_product(row))) for sku, row in rows.items()}

    return load
