"""Payments: intent, charge, settle; and settling up when an order ends otherwise.

The provider and the payment rows decide about money, never a flag in an event. No call to the provider happens
inside a transaction; a crash anywhere repeats the same provider keys. G6: captured − refunded = total if paid
or shipped, 0 otherwise. Tests: tests/stories/test_a_charge_that_meets_a_cancel_goes_back.py.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from asyncpg import Record
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert

from service.events import ORDERS_TOPIC, OrderPaid, OrderRejected, OrderReserved
from service.foundation import failpoints
from service.foundation.db import Connection, Statement
from service.foundation.grouped import Job, unnested
from service.foundation.sql import load_sql
from service.models import payment
from service.orders.operations import lock_order, note_refund
from service.orders.states import STEPS
from service.outbox import context_headers, encode, new_id
from service.payments import Money
from workers import inbox
from workers.envelope import Envelope
from workers.handling import Context

_INTENT: Final = Statement(
    insert(payment)
    .values(
        id=bindparam("id"), order_id=bindparam("order_id"), kind=bindparam("kind"), state=bindparam("state"),
        amount_minor=bindparam("amount_minor"), currency=bindparam("currency"), idempotency_key=bindparam("idempotency_key"),
    )
    .on_conflict_do_nothing(index_elements=["idempotency_key"])
)  # fmt: skip
_FIND: Final = Statement(select(payment).where(payment.c.idempotency_key == bindparam("key")))
INTEND_CHARGE: Final = Job("INSERT payment", unnested(load_sql(__file__, "intend_charge.sql")))
# A charge pays an order or declines it; both leave the same statuses (tests/unit/test_order_states.py).
SETTLE_CHARGE: Final = Job("UPDATE orders", unnested(load_sql(__file__, "settle_charge.sql"), list(STEPS["pay"].sources), ORDERS_TOPIC))
_SETTLE: Final = Statement(
    update(payment).where(payment.c.idempotency_key == bindparam("match_key")).values(state=bindparam("state"), updated_at=func.now())
)


def charge_key(order_id: UUID) -> str:
    """The charge's key at the provider: one an order, for ever."""
    return f"charge:{order_id}"


def refund_key(order_id: UUID) -> str:
    """The refund's key at the provider."""
    return f"refund:{order_id}"


async def on_reserved(event: Envelope, context: Context) -> str:
    """Charge the total and settle the order."""
    reserved = event.body(OrderReserved)
    money, order = Money(reserved.total_minor, reserved.currency), (event.aggregate_id,)
    intent = (context.consumer, event.event_id, reserved.order_id, new_id(), charge_key(reserved.order_id), money.amount_minor, money.currency)
    outcome, age_s = await context.jobs.run(INTEND_CHARGE, intent, order=order)
    if outcome != "intended":
        return str(outcome)
    await failpoints.hit("after-intent")
    state = await _charge(context, reserved.order_id, money, age_s=age_s)
    await failpoints.hit("after-charge-before-settle")
    settled = await context.jobs.run(SETTLE_CHARGE, _settlement(event, context, reserved, state), order=order)
    return str(settled["outcome"])


async def on_undone(event: Envelope, context: Context) -> str:
    """Cancelled or expired: void the charge; if it was captured already, refund it."""
    order_id = UUID(event.aggregate_id)
    async with context.db.transaction() as connection:
        await lock_order(connection, order_id)
        charge = await _find(connection, charge_key(order_id))
        if charge is None:
            claimed = await inbox.claim(connection, context.consumer, event.event_id)
            return "superseded" if claimed else "duplicate"
    state = await context.provider.void(charge_key(order_id), order_id)
    await failpoints.hit("after-void-before-record")
    if state == "captured":
        money = Money(charge["amount_minor"], charge["currency"])
        await context.provider.refund(refund_key(order_id), order_id, money)
        return await _record_refund(event, context, order_id, money)
    async with context.db.transaction() as connection:
        await lock_order(connection, order_id)
        if not await inbox.claim(connection, context.consumer, event.event_id):
            return "duplicate"
        await connection.execute(*_SETTLE(match_key=charge_key(order_id), state=state))
    return "applied"


async def _charge(context: Context, order_id: UUID, money: Money, *, age_s: float) -> str:
    """The charge's state at the provider. Providers forget keys: an old intent is looked up, never blindly repeated."""
    key = charge_key(order_id)
    if age_s > context.settings.payments.key_retention_h * 3600:
        return await context.provider.find(key) or "voided"
    return await context.provider.charge(key, order_id, money)


def _settlement(event: Envelope, context: Context, reserved: OrderReserved, state: str) -> tuple[Any, ...]:
    step, reason = (STEPS["pay"], None) if state == "captured" else (STEPS["decline"], "payment_declined")
    facts = reserved.model_dump()
    payload = OrderPaid(**facts) if reason is None else OrderRejected(**facts, reason=reason)
    return (
        context.consumer, event.event_id, reserved.order_id, charge_key(reserved.order_id), state,
        step.target, reason, new_id(), step.event, encode(payload), context_headers(),
    )  # fmt: skip


async def _record_refund(event: Envelope, context: Context, order_id: UUID, money: Money) -> str:
    async with context.db.transaction() as connection:
        await lock_order(connection, order_id)
        if not await inbox.claim(connection, context.consumer, event.event_id):
            return "duplicate"
        await connection.execute(*_SETTLE(match_key=charge_key(order_id), state="captured"))
        await _intend(connection, order_id, "refund", money, state="refunded")
        await note_refund(connection, order_id)
    return "applied"


async def _intend(connection: Connection, order_id: UUID, kind: str, money: Money, *, state: str) -> None:
    values: dict[str, Any] = {"id": new_id(), "order_id": order_id, "kind": kind, "state": state}
    key = charge_key(order_id) if kind == "charge" else refund_key(order_id)
    await connection.execute(*_INTENT(**values, amount_minor=money.amount_minor, currency=money.currency, idempotency_key=key))


async def _find(connection: Connection, key: str) -> Record | None:
    return await connection.fetchrow(*_FIND(key=key))


HANDLERS: Final = {"order.reserved": on_reserved, "order.cancelled": on_undone, "order.expired": on_undone}
