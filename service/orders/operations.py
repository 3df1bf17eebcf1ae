"""Orders: place, read, list, cancel, ship, expire, and what payments do to them.

Functions take the connection first (the create takes the pool: its statement is its own transaction).
Each transition is one guarded UPDATE that adds 1 to the version, and one event with that version.
Invariants: I1–I4, G3–G5 of docs/guarantees.md. Nothing here knows HTTP or Kafka.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final
from uuid import UUID

from asyncpg import Record
from sqlalchemy import Select, bindparam, case, func, null, select, update
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.types import Boolean, Integer, Text, Uuid

from service import events
from service.errors import InvalidTransition, NotFound, PreconditionFailed
from service.foundation.clock import rfc3339
from service.foundation.db import Connection, Statement
from service.models import order_line, order_timeline, orders
from service.orders.states import STEPS, WAITING, Step
from service.outbox import make_event, record

_LINES: Final = (
    select(
        func.json_agg(
            aggregate_order_by(
                func.json_build_object(
                    "line_no", order_line.c.line_no, "sku", order_line.c.sku,
                    "quantity", order_line.c.quantity, "unit_price_minor", order_line.c.unit_price_minor,
                ),
                order_line.c.line_no,
            )
        )
    )
    .where(order_line.c.order_id == orders.c.id)
    .scalar_subquery()
    .label("lines")
)  # fmt: skip
_ENTRIES: Final = (
    select(
        func.json_agg(
            aggregate_order_by(
                func.json_build_object(
                    "version", order_timeline.c.version, "type", order_timeline.c.type,
                    "at", order_timeline.c.at, "detail", order_timeline.c.detail,
                ),
                order_timeline.c.version,
            )
        )
    )
    .where(order_timeline.c.order_id == orders.c.id)
    .scalar_subquery()
    .label("entries")
)  # fmt: skip

_GET: Final = Statement(select(orders, _LINES).where(orders.c.id == bindparam("id")))
_FIND: Final = Statement(select(orders, _LINES).where(orders.c.id == func.any(bindparam("ids", type_=ARRAY(Uuid)))))
_TIMELINE: Final = Statement(select(orders.c.customer_id, _ENTRIES).where(orders.c.id == bindparam("id")))
_MOVE: Final = Statement(
    update(orders)
    .where(orders.c.id == bindparam("match_id"), orders.c.status == func.any(bindparam("sources", type_=ARRAY(Text))))
    .where(func.coalesce(bindparam("match_version", type_=Integer), orders.c.version) == orders.c.version)
    .values(
        status=bindparam("target"),
        status_reason=bindparam("reason", type_=Text),
        version=orders.c.version + 1,
        updated_at=func.now(),
        closed_at=case((bindparam("waits", type_=Boolean), null()), else_=func.coalesce(orders.c.closed_at, func.now())),
    )
    .returning(orders, _LINES)
)
_LOCK: Final = Statement(select(orders).where(orders.c.id == bindparam("id")).with_for_update(key_share=True))
_BUMP: Final = Statement(
    update(orders).where(orders.c.id == bindparam("match_id")).values(version=orders.c.version + 1, updated_at=func.now()).returning(orders)
)


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Whose orders, in which status; None means all."""

    customer_id: str | None = None
    status: str | None = None


async def get_order(connection: Connection, order_id: UUID) -> Record:
    """The row with `lines`. Raises `NotFound`."""
    row = await connection.fetchrow(*_GET(id=order_id))
    if row is None:
        raise NotFound
    return row


async def find_orders(connection: Connection, order_ids: Sequence[UUID]) -> list[Record]:
    """The rows with `lines` of those that exist."""
    rows: list[Record] = await connection.fetch(*_FIND(ids=list(order_ids)))
    return rows


async def get_timeline(connection: Connection, order_id: UUID) -> tuple[str, Sequence[dict[str, Any]]]:
    """(owner, entries by version). Raises `NotFound`."""
    row = await connection.fetchrow(*_TIMELINE(id=order_id))
    if row is None:
        raise NotFound
    entries = row["entries"] or []
    return row["customer_id"], [entry | {"at": rfc3339(datetime.fromisoformat(entry["at"]))} for entry in entries]


@cache
def _list_statement(*, by_customer: bool, by_status: bool, before: bool) -> Statement:
    # One text a combination: `$1 IS NULL OR …` under a generic plan would read the whole table.
    query: Select[Any] = select(orders, _LINES).order_by(orders.c.id.desc()).limit(bindparam("limit", type_=Integer))
    if by_customer:
        query = query.where(orders.c.customer_id == bindparam("customer_id"))
    if by_status:
        query = query.where(orders.c.status == bindparam("status"))
    if before:
        query = query.where(orders.c.id < bindparam("before"))
    return Statement(query)


async def list_orders(connection: Connection, wanted: OrderFilter, *, before: UUID | None, limit: int) -> list[Record]:
    """Up to `limit` rows with `lines`, newest first, older than `before` (keyset: the same cost at any depth)."""
    values: dict[str, object] = {"limit": limit}
    if wanted.customer_id is not None:
        values["customer_id"] = wanted.customer_id
    if wanted.status is not None:
        values["status"] = wanted.status
    if before is not None:
        values["before"] = before
    statement = _list_statement(by_customer="customer_id" in values, by_status="status" in values, before=before is not None)
    rows: list[Record] = await connection.fetch(*statement(**values))
    return rows


async def cancel_order(connection: Connection, order_id: UUID, *, version: int) -> Record:
    """placed, reserved or paid → cancelled. Raises `NotFound`, `PreconditionFailed`, `InvalidTransition`."""
    return await _change(connection, order_id, "cancel", version)


async def ship_order(connection: Connection, order_id: UUID, *, version: int) -> Record:
    """paid → shipped. Raises `NotFound`, `PreconditionFailed`, `InvalidTransition`."""
    return await _change(connection, order_id, "ship", version)


async def _change(connection: Connection, order_id: UUID, step: str, version: int) -> Record:
    moved = await move(connection, order_id, step, version=version)
    if moved is not None:
        return moved
    current = await get_order(connection, order_id)
    if current["version"] != version:
        raise PreconditionFailed(extra={"current_version": current["version"]})
    raise InvalidTransition(f"an order that is {current['status']} cannot be changed by {step}")


async def move(connection: Connection, order_id: UUID, step: str, *, version: int | None = None, reason: str | None = None) -> Record | None:
    """Take one step of `states.STEPS` and record its event; None if the guard hit no row (nothing written)."""
    legal: Step = STEPS[step]
    row = await connection.fetchrow(
        *_MOVE(
            match_id=order_id, sources=list(legal.sources), match_version=version, target=legal.target, waits=legal.target in WAITING, reason=reason
        )
    )
    if row is not None:
        await record(connection, make_event(legal.event, "order", str(order_id), row["version"], _payload(legal.event, row, reason)))
    return row


async def lock_order(connection: Connection, order_id: UUID) -> Record | None:
    """The row, locked against other transitions (`FOR NO KEY UPDATE`) until the transaction ends."""
    return await connection.fetchrow(*_LOCK(id=order_id))


async def note_refund(connection: Connection, order_id: UUID) -> None:
    """Version + 1 and `order.refunded`; the status stays."""
    row = await connection.fetchrow(*_BUMP(match_id=order_id))
    assert row is not None  # the caller holds the order's lock
    await record(connection, make_event("order.refunded", "order", str(order_id), row["version"], _payload("order.refunded", row, None)))


def _payload(event_type: str, row: Record, reason: str | None) -> events.Payload:
    facts = {name: row[name] for name in ("customer_id", "total_minor", "currency")} | {"order_id": row["id"]}
    if event_type == "order.rejected":
        return events.OrderRejected(**facts, reason=reason or "unknown")
    return events.TYPES[event_type](**facts)
