"""The catalogue and its stock: reads, changes, restock, reserve, release.

Functions take the connection first; callers open the transaction. Nothing here knows HTTP or Kafka.
Invariant G1: Σ available + reserved + shipped = seeded + restocked, at all times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from asyncpg import Record
from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from service.errors import NotFound, PreconditionFailed
from service.events import OrderRejected, OrderReserved, ProductChanged, ProductRestocked
from service.foundation.db import Connection, Statement
from service.foundation.grouped import Job
from service.foundation.sql import load_sql
from service.models import product, stock, stock_ledger
from service.outbox import context_headers, encode, make_event, new_id, record

_BY_SKUS: Final = Statement(select(product).where(product.c.sku == func.any(bindparam("skus", type_=ARRAY(Text)))))
_PAGE: Final = Statement(
    select(product).where(product.c.sku > bindparam("after")).order_by(product.c.sku).limit(bindparam("limit", type_=product.c.version.type))
)
_AVAILABLE: Final = Statement(
    select(stock.c.available).select_from(stock.join(product, product.c.sku == stock.c.sku)).where(stock.c.sku == bindparam("sku"))
)
_CHANGE: Final = Statement(
    update(product)
    .where(product.c.sku == bindparam("match_sku"), product.c.version == bindparam("match_version"))
    .values(
        name=func.coalesce(bindparam("name", type_=product.c.name.type), product.c.name),
        price_minor=func.coalesce(bindparam("price_minor", type_=product.c.price_minor.type), product.c.price_minor),
        active=func.coalesce(bindparam("active", type_=product.c.active.type), product.c.active),
        version=product.c.version + 1,
        updated_at=func.now(),
    )
    .returning(product)
)
_BUMP: Final = Statement(
    update(product)
    .where(product.c.sku == bindparam("match_sku"))
    .values(version=product.c.version + 1, updated_at=func.now())
    .returning(product.c.version)
)
_ADD_STOCK: Final = Statement(
    update(stock)
    .where(stock.c.sku == bindparam("match_sku"))
    .values(available=stock.c.available + bindparam("quantity", type_=stock.c.available.type))
)
_LEDGER: Final = Statement(
    insert(stock_ledger).values(ref_id=bindparam("ref_id"), sku=bindparam("sku"), kind=bindparam("kind"), quantity=bindparam("quantity"))
)
_HELD_SKUS: Final = Statement(select(stock_ledger.c.sku).where(stock_ledger.c.ref_id == bindparam("order_id"), stock_ledger.c.kind == "reserve"))
_LOCK: Final = load_sql(__file__, "reserve_lock.sql")
_RESERVE: Final = load_sql(__file__, "reserve_stock.sql")
_RELEASE: Final = load_sql(__file__, "release_stock.sql")


@dataclass(frozen=True, slots=True)
class Reservation:
    """What an `order.placed` asks for, once for each `consumer`; `headers` ride with the event that answers it."""

    consumer: str
    event_id: UUID
    order_id: UUID
    customer_id: str
    total_minor: int
    currency: str
    skus: Sequence[str]
    quantities: Sequence[int]
    headers: Mapping[str, str] = field(default_factory=context_headers)


async def find_products(connection: Connection, skus: Sequence[str]) -> dict[str, Record]:
    """SKU → row, for those that exist."""
    return {row["sku"]: row for row in await connection.fetch(*_BY_SKUS(skus=[sku for sku in skus if "\0" not in sku]))}


def _require_text(sku: str) -> None:
    # From a path: PostgreSQL refuses U+0000 in text, and no product is named so.
    if "\0" in sku:
        raise NotFound


async def get_product(connection: Connection, sku: str) -> Record:
    """The row. Raises `NotFound`."""
    found = await find_products(connection, [sku])
    if sku not in found:
        raise NotFound
    return found[sku]


async def list_products(connection: Connection, *, after: str, limit: int) -> list[Record]:
    """Up to `limit` rows by SKU after `after` (keyset)."""
    rows: list[Record] = await connection.fetch(*_PAGE(after=after, limit=limit))
    return rows


async def get_availability(connection: Connection, sku: str) -> int:
    """Pieces that can be sold now; advisory, since only a reservation decides. Raises `NotFound`."""
    _require_text(sku)
    available = await connection.fetchval(*_AVAILABLE(sku=sku))
    if available is None:
        raise NotFound
    return int(available)


async def change_product(connection: Connection, sku: str, changes: Mapping[str, Any], *, version: int) -> Record:
    """Apply `changes` if the row still has `version`; version + 1 and one `product.changed`.

    Raises `NotFound`, or `PreconditionFailed` with the current version in `extra`.
    """
    _require_text(sku)
    values = {"name": None, "price_minor": None, "active": None} | dict(changes)
    row = await connection.fetchrow(*_CHANGE(match_sku=sku, match_version=version, **values))
    if row is None:
        current = await get_product(connection, sku)
        raise PreconditionFailed(extra={"current_version": current["version"]})
    payload = ProductChanged(sku=sku, name=row["name"], price_minor=row["price_minor"], currency=row["currency"], active=row["active"])
    await record(connection, make_event("product.changed", "product", sku, row["version"], payload))
    return row


async def restock(connection: Connection, sku: str, quantity: int) -> int:
    """Add pieces; answers the product's new version. One ledger row, one `product.restocked`. Raises `NotFound`."""
    _require_text(sku)
    version = await connection.fetchval(*_BUMP(match_sku=sku))
    if version is None:
        raise NotFound
    await connection.execute(*_ADD_STOCK(match_sku=sku, quantity=quantity))
    await connection.execute(*_LEDGER(ref_id=new_id(), sku=sku, kind="restock", quantity=quantity))
    await record(connection, make_event("product.restocked", "product", sku, version, ProductRestocked(sku=sku, quantity=quantity)))
    return int(version)


async def reserve(connection: Connection, wanted: Sequence[Reservation]) -> list[str]:
    """Take each order's lines from stock, all or nothing, or reject the order; in the caller's transaction, once per event.

    Answers for each `reserved`, `rejected`, `superseded` (the order is no longer placed) or `duplicate`. Many of them
    cost little more than one: the locks of all first, then the statement of one, pipelined.
    """
    await connection.fetchval(_LOCK, [each.order_id for each in wanted], [sku for each in wanted for sku in each.skus])
    values = [_reserve_values(each) for each in wanted]
    rows = await connection.fetchmany(_RESERVE, values) if len(values) > 1 else [await connection.fetchrow(_RESERVE, *values[0])]
    return [str(row["outcome"]) for row in rows if row is not None]


def _reserve_values(wanted: Reservation) -> tuple[Any, ...]:
    facts = {"order_id": wanted.order_id, "customer_id": wanted.customer_id, "total_minor": wanted.total_minor, "currency": wanted.currency}
    return (
        wanted.consumer, wanted.event_id, wanted.order_id, list(wanted.skus), list(wanted.quantities),
        new_id(), encode(OrderReserved(**facts)), new_id(), encode(OrderRejected(**facts, reason="out_of_stock")), dict(wanted.headers),
    )  # fmt: skip


RESERVE: Final = Job("reserve", reserve, transactional=True)


async def lock_held_stock(connection: Connection, order_id: UUID) -> None:
    """Lock the order, then the stock rows its reservation touched, in the one lock order."""
    await connection.fetchval(_LOCK, [order_id], [])
    skus = [row["sku"] for row in await connection.fetch(*_HELD_SKUS(order_id=order_id))]
    if skus:
        await connection.fetchval(_LOCK, [], skus)


async def settle_stock(connection: Connection, order_id: UUID, *, kind: str) -> int:
    """`release` gives back, `ship` lets go, what the ledger says was reserved; answers lines settled (0 if done)."""
    return int(await connection.fetchval(_RELEASE, order_id, kind))
