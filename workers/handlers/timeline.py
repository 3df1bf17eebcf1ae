"""Timeline: the read model of an order's history. Commutative: any order, any number of deliveries, same rows.

`ON CONFLICT DO NOTHING` on (order, version) is the inbox here.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from service.events import TYPES, OrderEvent, OrderRejected
from service.foundation import metrics
from service.foundation.db import Statement
from service.models import order_timeline
from workers.envelope import Envelope
from workers.handling import Context

_ADD: Final = Statement(
    insert(order_timeline)
    .values({name: bindparam(name) for name in ("order_id", "version", "type", "at", "detail")})
    .on_conflict_do_nothing()
    .returning(order_timeline.c.version)
)


async def on_event(event: Envelope, context: Context) -> str:
    """One row a version."""
    order = event.body(OrderEvent)
    detail: dict[str, Any] = {"reason": order.reason} if isinstance(order, OrderRejected) else {}
    async with context.db.connection() as connection:
        added = await connection.fetchval(
            *_ADD(order_id=UUID(event.aggregate_id), version=event.version, type=event.event_type, at=event.at, detail=detail)
        )
    if added is None:
        return "duplicate"
    status = event.event_type.removeprefix("order.")
    metrics.orders_moved.labels(status).inc()
    metrics.orders_value.labels(status, order.currency).inc(order.total_minor)
    return "applied"


HANDLERS: Final = {name: on_event for name in TYPES if name.startswith("order.")}
