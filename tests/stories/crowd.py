"""People who buy and read until they are told to stop, and never retry: whatever fails is noted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from tests.stories.shop import Shop, until
from tests.support.clients import ApiClient

# People look before they buy again; without it the crowd takes the processor from the process that starts.
PAUSE_S = 0.05


@dataclass(slots=True)
class Crowd:
    """What they got so far. `failures`: broken calls and answers from 300 up."""

    orders: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    answered: int = 0

    async def more(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        before = self.answered

        async def look() -> bool:
            return self.answered >= before + count

        await until(look, f"{count} more requests are answered (so far {before}, failed: {self.failures[:3]})")

    async def ask(self, send: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response | None:
        try:
            response = await send()
        except httpx.HTTPError as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            return None
        self.answered += 1
        if response.status_code >= 300:
            self.failures.append(f"{response.status_code}: {response.text[:200]}")
        return response

    async def buy(self, anna: ApiClient, sku: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            placed = await self.ask(lambda: anna.place((sku, 1)))
            if placed is not None and placed.status_code == 201:
                self.orders.append(placed.json())
                await self.ask(partial(anna.get, f"/orders/{placed.json()['id']}"))
            await self.ask(lambda: anna.get(f"/products/{sku}"))
            await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def buying(shop: Shop, *, people: int, sku: str) -> AsyncIterator[Crowd]:
    """They buy during the block and are gone after it."""
    crowd, stop = Crowd(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(people):
            group.create_task(crowd.buy(shop.login(f"anna-{sku}-{number}"), sku, stop))
        try:
            yield crowd
        finally:
            stop.set()
