"""The catalogue to start with: 1,000 products in EUR, and stock, written as the ledger wants it.

SKU-0001 costs 999 and has plenty; SKU-0002 has exactly 100 pieces. Running it again changes nothing.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from service.foundation.db import Database
from service.settings import Settings

PRODUCTS: Final = 1_000
PLENTY: Final = 10_000_000
# One reference for all seeded pieces, so that the ledger's primary key makes a second run a no-op.
SEED_REF: Final = UUID("00000000-0000-7000-8000-000000000001")
_ADJECTIVES: Final = ("Plain", "Sturdy", "Folding", "Quiet", "Bright", "Woven", "Narrow", "Round", "Heavy", "Light")
_NOUNS: Final = ("Lamp", "Chair", "Kettle", "Rope", "Mirror", "Basket", "Ladder", "Clock", "Bottle", "Shelf")

_INSERT: Final = """
WITH wanted AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS w (sku, name, price_minor, pieces)
), products AS (
    INSERT INTO product (sku, name, price_minor, currency) SELECT sku, name, price_minor, 'EUR' FROM wanted
    ON CONFLICT DO NOTHING RETURNING sku
), stocked AS (
    INSERT INTO stock (sku, available) SELECT w.sku, w.pieces FROM wanted w JOIN products USING (sku)
)
INSERT INTO stock_ledger (ref_id, sku, kind, quantity) SELECT $5, w.sku, 'seed', w.pieces FROM wanted w JOIN products USING (sku)
"""


async def seed_shop(settings: Settings) -> int:
    """As `seed_catalogue`, on a connection of its own."""
    db = Database(settings.db.model_copy(update={"pool_size": 1}), application="plumbline-seed")
    await db.open()
    try:
        return await seed_catalogue(db)
    finally:
        await db.close()


async def seed_catalogue(db: Database) -> int:
    """Insert what is missing; answers the number of products there now."""
    rows = [_product(number) for number in range(1, PRODUCTS + 1)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    async with db.transaction() as connection:
        await connection.execute(_INSERT, *columns, SEED_REF)
        return int(await connection.fetchval("SELECT count(*) FROM product"))


def _product(number: int) -> tuple[str, str, int, int]:
    name = f"{_ADJECTIVES[number % 10]} {_NOUNS[number // 10 % 10]} {number}"
    # Prices end in neither 13 nor 17, the fake provider's magic totals, for one piece.
    price = 999 if number == 1 else 500 + number * 10
    return f"SKU-{number:04d}", name, price, 100 if number == 2 else PLENTY
