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

pytestmark = pytest.mark.broker

HELD = {"APP_FAILPOINTS": "after-intent=hang,after-charge-before-settle=hang"}


@pytest_asyncio.fixture(scope="module")
async def slow_shop() -> AsyncIterator[Shop]:
    with running_shop(env=SHORT_TIERS | HELD) as home:
        async with open_shop(home) as opened:
            yield opened


async def test_a_charge_that_meets_a_cancel_goes_back(slow_shop: Shop) -> None:
    await slow_shop.kill("worker")  # arms the failpoints, which the stack's self-check has used up

    intended, charged = await cancel_at_both_points(slow_shop)
    await slow_shop.kill("worker")
    await goes_back(slow_shop, intended, ["voided"])  # nothing was charged: the provider refuses a late charge now
    await goes_back(slow_shop, charged, ["captured", "refunded"])

    for left_alone in await cancel_at_both_points(slow_shop):
        await goes_back(slow_shop, left_alone, ["captured", "refunded"])
    await slow_shop.holds()


async def cancel_at_both_points(shop: Shop) -> tuple[Order, Order]:
    """Two orders, cancelled while the worker stands after the intent of the first and after the charge of the second."""
    for _ in range(3):
        first = await cancel_at(shop, "intent")
        second = await cancel_at(shop, "charge")  # the first has used up the point after the intent
        if await reached(shop, first, "intent"):
            return first, second
        await shop.holds()  # too slow: the three seconds were over; once more
        await shop.kill("worker")
    raise AssertionError("three times the worker went on within three seconds, before two orders were cancelled: is the machine overloaded?")


async def cancel_at(shop: Shop, point: str) -> Order:
    """Place an order and cancel it while the worker stands at the point, or once it is paid because it never stood there."""
    anna = shop.login("anna-cancels")
    order: Order = (await shop.definite(lambda: anna.place(("SKU-0005", 1), key=f"order-{uuid4()}"))).json()

    async def time_to_cancel() -> bool:
        return await reached(shop, order, point) or await shop.status(order) == "paid"

    await until(time_to_cancel, f"the worker stands after the {point}")
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
