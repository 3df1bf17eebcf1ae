"""Notifications: one message an event, at least once, keyed by event id.

The send comes first and the inbox row after it: a crash between them repeats the message, never loses it.
"""

from __future__ import annotations

from typing import Final

from service.events import OrderEvent
from workers import inbox
from workers.envelope import Envelope
from workers.handling import Context


async def on_event(event: Envelope, context: Context) -> str:
    """Tell the customer."""
    order = event.body(OrderEvent)
    await context.sink.send({
        "event_id": str(event.event_id), "type": event.event_type, "order_id": event.aggregate_id,
        "customer_id": order.customer_id, "version": event.version, "at": event.at.isoformat(),
    })  # fmt: skip
    first = await context.jobs.run(inbox.CLAIM, (context.consumer, event.event_id), order=(str(event.event_id),))
    return "applied" if first else "duplicate"


HANDLERS: Final = {f"order.{what}": on_event for what in ("paid", "rejected", "cancelled", "shipped", "expired", "refunded")}
