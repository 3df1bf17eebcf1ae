"""A cancel that arrives while the charge is under way, at every point of it: no money is kept, here or at the provider.

Failpoints hold the worker for three seconds between intent and charge, and between charge and settlement; it is
left alone there, or killed. They fire once a process, so a new worker stands armed again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.stories.shop import SHORT_TIERS, Order, Shop, open_shop, running_shop, until

HELD = {"APP_FAILPOINTS": "after-intent=hang,after-charge-before-settle=hang"}


@pytest_asyncio.fixture(scope="module")
async def slow_shop() -> AsyncIterator[Shop]:
    with running_shop(env=SHORT_TIERS | HELD) as home:
        async with open_shop(home) as opened:
            yield opened


@pytest.mark.parametrize(
    ("point", "after_a_kill"),
    [
        ("intent", ["voided"]),  # nothing was charged yet: the void makes the provider refuse a late charge
        ("charge", ["captured", "refunded"]),
    ],
)
async def test_a_charge_that_meets_a_cancel_goes_back(slow_shop: Shop, point: str, after_a_kill: list[str]) -> None:
    await slow_shop.kill("worker")  # arms the failpoints, which the stack's self-check has used up
    killed = await cancel_at(slow_shop, point)
    await slow_shop.kill("worker")
    await goes_back(slow_shop, killed, after_a_kill)
    left_alone = await cancel_at(slow_shop, point)
    await goes_back(slow_shop, left_alone, ["captured", "refunded"])
    await slow_shop.holds()


async def cancel_at(shop: Shop, point: str) -> Order:
    """Place an order and cancel it while the worker stands at the point."""
    anna = shop.login("anna-cancels")
    order: Order = (await shop.definite(lambda: anna.place(("SKU-0005", 1), key=f"order-{uuid4()}"))).json()
    await until(lambda: reached(shop, order, point), f"the worker stands after the {point}")
    current = (await anna.get(f"/orders/{order['id']}")).json()
    cancelled = await shop.definite(lambda: anna.cancel(current, key=f"cancel-{order['id']}"))
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled"), cancelled.text
    return order


async def reached(shop: Shop, order: Order, point: str) -> bool:
    """Does the worker stand there: intent stored and nothing charged, or charged and nothing settled?"""
    started = await shop.database.fetchval("SELECT count(*) FROM payment WHERE order_id = $1 AND state = 'started'", order["id"])
    return bool(started) and bool(shop.decisions(order)) == (point == "charge")


async def goes_back(shop: Shop, order: Order, states: list[str]) -> None:
    """Wait until our payment rows say so; the provider must say the same, and the order stays cancelled."""

    async def settled() -> bool:
        rows = await shop.database.fetch("SELECT state FROM payment WHERE order_id = $1 ORDER BY kind", order["id"])
        return [row["state"] for row in rows] == states

    await until(settled, f"the payment ends {' and '.join(states)}")
    assert [entry["state"] for entry in shop.decisions(order)] == states
    assert await shop.status(order) == "cancelled"
