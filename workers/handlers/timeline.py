"""Timeline: the read model of an order's history. Commutative: any order, any number of deliveries, same rows.

`ON CONFLICT DO NOTHING` on (order, version) is the inbox here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from service.events import TYPES, OrderEvent, OrderRejected
from service.foundation import metrics
from service.foundation.db import Connection
from service.foundation.grouped import Job
from service.foundation.sql import load_sql
from workers import inbox
from workers.envelope import Envelope
from workers.handling import Context

_ADD: Final = load_sql(__file__, "add_entries.sql")


class Entry(NamedTuple):
    """A row of the timeline; `reason` of a rejection."""

    order_id: UUID
    version: int
    type: str
    at: datetime
    reason: str | None


async def _add(connection: Connection, entries: Sequence[Entry]) -> list[bool]:
    added = {(row["order_id"], row["version"]) for row in await connection.fetch(_ADD, *zip(*entries, strict=True))}
    return inbox.taken_once(added, [(entry.order_id, entry.version) for entry in entries])


ADD: Final = Job("INSERT order_timeline", _add)


async def on_event(event: Envelope, context: Context) -> str:
    """One row a version."""
    order = event.body(OrderEvent)
    entry = Entry(UUID(event.aggregate_id), event.version, event.event_type, event.at, order.reason if isinstance(order, OrderRejected) else None)
    if not await context.jobs.run(ADD, entry, order=(event.aggregate_id, f"{event.version:010}")):
        return "duplicate"
    moved, value = _counters(event.event_type.removeprefix("order."), order.currency)
    moved.inc()
    value.inc(order.total_minor)
    return "applied"


@cache
def _counters(status: str, currency: str) -> tuple[Any, Any]:
    return metrics.orders_moved.labels(status), metrics.orders_value.labels(status, currency)


HANDLERS: Final = {name: on_event for name in TYPES if name.startswith("order.")}
