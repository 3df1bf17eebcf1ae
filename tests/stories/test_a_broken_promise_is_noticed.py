"""The checks behind the stories are able to fail: each invariant, broken by hand in a transaction, is reported."""

from __future__ import annotations

import pytest

from tests.stories.shop import Order, Shop
from tests.support import invariants

_PAYMENT = "INSERT INTO payment (id, order_id, kind, state, amount_minor, currency, idempotency_key) SELECT gen_random_uuid(), id"
_EVENT = "event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers"
# What is broken: the invariant that must notice, and how it is done to a paid order ($1).
BREAKS = {
    "an order no key answers with": ("I2", "DELETE FROM idempotency_key WHERE headers ->> 'location' = '/v1/orders/' || $1::text"),
    "two keys for one order": (
        "I2",
        """INSERT INTO idempotency_key (principal, key, fingerprint, status, headers, body, expires_at)
        SELECT principal, 'second', fingerprint, status, headers, body, now() FROM idempotency_key
        WHERE headers ->> 'location' = '/v1/orders/' || $1::text""",
    ),
    "an answered order that is not there": (
        "I2",
        "UPDATE idempotency_key SET headers = '{\"location\": \"/v1/orders/gone\"}' WHERE headers ->> 'location' = '/v1/orders/' || $1::text",
    ),
    "a piece too few": ("G1", "UPDATE stock SET available = available - 1 FROM order_line l WHERE l.order_id = $1::uuid AND stock.sku = l.sku"),
    "a paid order that holds nothing": ("G1", "DELETE FROM stock_ledger WHERE ref_id = $1::uuid AND kind = 'reserve'"),
    "more taken than there was": ("G2", "UPDATE stock_ledger SET quantity = 100000000 WHERE ref_id = $1::uuid"),
    "a sold-out order that holds pieces": (
        "G2",
        "UPDATE orders SET status = 'rejected', closed_at = now(), status_reason = 'out_of_stock' WHERE id = $1::uuid",
    ),
    "a change without its event": ("G5", "UPDATE orders SET version = version + 1 WHERE id = $1::uuid"),
    "events out of order": ("O2", "UPDATE outbox_sent SET version = 5 - version WHERE aggregate_id = $1::text AND version > 1"),
    "an event never published": ("W1", f"INSERT INTO outbox ({_EVENT}) SELECT {_EVENT} FROM outbox_sent WHERE aggregate_id = $1::text"),
    "an event never applied": ("W1", "DELETE FROM inbox WHERE event_id IN (SELECT event_id FROM outbox_sent WHERE aggregate_id = $1::text)"),
    "a history with a hole": ("W1", "DELETE FROM order_timeline WHERE order_id = $1::uuid AND version = 2"),
    "a step announced twice": ("W2", "UPDATE outbox_sent SET type = 'order.paid' WHERE aggregate_id = $1::text"),
    "a second charge": ("W2", f"{_PAYMENT}, 'charge', 'declined', 1, 'EUR', 'second' FROM orders WHERE id = $1::uuid"),
    "a refund nobody asked for": ("G6", f"{_PAYMENT}, 'refund', 'refunded', total_minor, 'EUR', 'gift' FROM orders WHERE id = $1::uuid"),
    "money kept after a cancel": ("G6", "UPDATE orders SET status = 'cancelled', closed_at = now() WHERE id = $1::uuid"),
    "an order left lying": ("ended", "UPDATE orders SET status = 'placed', closed_at = NULL WHERE id = $1::uuid"),
}


async def paid_order(shop: Shop) -> Order:
    anna = shop.login("anna-broken")
    order: Order = (await shop.definite(lambda: anna.place(("SKU-0006", 1), key="broken"))).json()
    await shop.becomes(order, "paid")
    await shop.holds()
    return order


@pytest.mark.parametrize("what", BREAKS)
async def test_a_broken_promise_is_noticed(shop: Shop, what: str) -> None:
    order = await paid_order(shop)
    name, sql = BREAKS[what]
    transaction = shop.database.transaction()
    await transaction.start()
    try:
        await shop.database.execute(sql, order["id"])
        violated = await shop.violated()
    finally:
        await transaction.rollback()
    assert name in violated, f"{what} went unnoticed: {violated}"
    await shop.holds()


@pytest.mark.parametrize(("early_ms", "found"), [(1, 1), (0, 0), (-250, 0)])
async def test_a_retry_that_begins_before_it_is_due_is_noticed(early_ms: int, found: int) -> None:
    line = {"group": "payments", "tier": 1, "aggregate": "order", "timestamp": "2026-01-01T00:00:00.000000+00:00", "due_ms": 1_767_225_600_000}
    assert len(await invariants.nothing_begins_early([line | {"due_ms": line["due_ms"] + early_ms}])) == found


async def test_the_providers_own_account_counts(shop: Shop) -> None:
    order = await paid_order(shop)
    log = invariants.provider_log(shop.home)
    charge = next(entry for entry in log if entry["order_id"] == order["id"])
    assert set(await invariants.held(shop.database, [*log, charge | {"key": "again"}], [])) == {"W2", "G6"}
    assert set(await invariants.held(shop.database, [entry for entry in log if entry is not charge], [])) == {"G6"}
    assert set(await invariants.held(shop.database, [*log, charge | {"order_id": "stranger"}], [])) == {"G6"}
