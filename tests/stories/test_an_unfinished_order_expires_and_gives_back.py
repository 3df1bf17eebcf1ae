"""An order nobody can finish ends by itself: its pieces are for sale again, and nothing is charged, not even late."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.stories.shop import SHORT_TIERS, Order, Shop, open_shop, running_shop, until

pytestmark = pytest.mark.broker

# 83 × 999 ends in 17: the provider fails on it, so the order stays reserved.
HOPELESS = ("SKU-0001", 83)
QUICK = {"APP_ORDERS_EXPIRE_AFTER_S": "6", "APP_ORDERS_EXPIRE_SLACK_S": "0", "APP_ORDERS_CHARGE_GRACE_S": "1"}


@pytest_asyncio.fixture(scope="module")
async def quick_shop() -> AsyncIterator[Shop]:
    with running_shop(env=SHORT_TIERS | QUICK) as home:
        async with open_shop(home) as opened:
            yield opened


async def test_an_unfinished_order_expires_and_gives_back(quick_shop: Shop) -> None:
    shop, anna = quick_shop, quick_shop.login("anna-waits")
    before = await pieces(shop)
    reserved = (await shop.definite(lambda: anna.place(HOPELESS, key="stays-reserved"))).json()
    await until(lambda: pieces_are(shop, before - 83), "its pieces are reserved")
    await shop.becomes(reserved, "reserved")
    await until(lambda: charging(shop, reserved), "the worker tries to charge it, in vain")

    # Nobody even looks at the second order before it expires; the worker finds it when it comes back.
    stopped = shop.signal("worker", signal.SIGSTOP)
    assert stopped
    try:
        placed = (await shop.definite(lambda: anna.place(HOPELESS, key="stays-placed"))).json()
        await shop.become([reserved, placed], "expired")
    finally:
        shop.signal("worker", signal.SIGCONT)

    await until(lambda: pieces_are(shop, before), "the pieces are for sale again")
    await shop.holds()
    assert [entry["state"] for entry in shop.decisions(reserved)] == ["voided"]
    assert shop.decisions(placed) == []
    assert await shop.database.fetchval("SELECT count(*) FROM stock_ledger WHERE ref_id = $1", placed["id"]) == 0


async def pieces(shop: Shop) -> int:
    return int(await shop.database.fetchval("SELECT available FROM stock WHERE sku = $1", HOPELESS[0]))


async def pieces_are(shop: Shop, expected: int) -> bool:
    return await pieces(shop) == expected


async def charging(shop: Shop, order: Order) -> bool:
    return bool(await shop.database.fetchval("SELECT count(*) FROM payment WHERE order_id = $1 AND state = 'started'", order["id"]))
