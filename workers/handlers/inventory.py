"""Inventory: reserve what was placed, give back what was cancelled, rejected or expired, let go what was shipped.

The ledger says what was reserved; events only say when. So any order and any number of deliveries end alike.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from service.events import OrderPlaced
from service.products.operations import RESERVE, Reservation, lock_held_stock, settle_stock
from workers import inbox
from workers.envelope import Envelope
from workers.handling import Context


async def on_placed(event: Envelope, context: Context) -> str:
    """Reserve all lines or reject the order."""
    placed = event.body(OrderPlaced)
    wanted = Reservation(
        consumer=context.consumer,
        event_id=event.event_id,
        order_id=placed.order_id,
        customer_id=placed.customer_id,
        total_minor=placed.total_minor,
        currency=placed.currency,
        skus=[line.sku for line in placed.lines],
        quantities=[line.quantity for line in placed.lines],
    )
    outcome = await context.jobs.run(RESERVE, wanted, order=(event.aggregate_id,))
    return "applied" if outcome in ("reserved", "rejected") else outcome


async def on_undone(event: Envelope, context: Context) -> str:
    """Cancelled, rejected or expired: what was reserved goes back."""
    return await _settle(event, context, kind="release")


async def on_shipped(event: Envelope, context: Context) -> str:
    """Shipped: the reservation becomes a shipment."""
    return await _settle(event, context, kind="ship")


async def _settle(event: Envelope, context: Context, *, kind: str) -> str:
    order_id = UUID(event.aggregate_id)
    async with context.db.transaction() as connection:
        await lock_held_stock(connection, order_id)
        if not await inbox.claim(connection, context.consumer, event.event_id):
            return "duplicate"
        lines = await settle_stock(connection, order_id, kind=kind)
    return "applied" if lines else "superseded"


HANDLERS: Final = {
    "order.placed": on_placed,
    "order.cancelled": on_undone,
    "order.rejected": on_undone,
    "order.expired": on_undone,
    "order.shipped": on_shipped,
}
