"""Redis holds nothing whose loss matters: killed again and again, or frozen, no sale and no read fails."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import httpx

from tests.proofs.cache_faults import redis_answers
from tests.stories.crowd import PAUSE_S
from tests.stories.shop import Shop, until
from tests.support.clients import ApiClient

BUYERS, KILLS, FROZEN_S = 6, 2, 1.5


async def test_redis_away_sales_go_on(shop: Shop) -> None:
    stop, orders, refusals = asyncio.Event(), [], []

    async def ask(send: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        response = await send()
        if response.status_code >= 300:
            refusals.append((response.status_code, response.text[:200]))
        return response

    async def buy(anna: ApiClient) -> None:
        while not stop.is_set():
            placed = await ask(lambda: anna.place(("SKU-0004", 1)))
            if placed.status_code == 201:
                orders.append(placed.json())
                await ask(partial(anna.get, f"/orders/{placed.json()['id']}"))
            await ask(lambda: anna.get("/products/SKU-0004"))
            await asyncio.sleep(PAUSE_S)

    async with asyncio.TaskGroup() as group:
        for number in range(BUYERS):
            group.create_task(buy(shop.login(f"anna-redis-{number}")))
        try:
            for _ in range(KILLS):
                await more(orders)
                await shop.replaced("redis", shop.signal("redis", signal.SIGKILL))
                await until(lambda: redis_answers(shop), "Redis answers again")
            shop.signal("redis", signal.SIGSTOP)
            await asyncio.sleep(FROZEN_S)  # the fault itself: how long nobody answers
            await more(orders)
            shop.signal("redis", signal.SIGCONT)
            await more(orders)
        finally:
            stop.set()
    assert refusals == []
    await shop.become(orders, "paid")
    await shop.holds()


async def more(orders: list[object]) -> None:
    """Wait until ten more orders were placed."""
    before = len(orders)

    async def look() -> bool:
        return len(orders) >= before + 10

    await until(look, f"ten more orders than {before} are placed")
