"""A writer dies between COMMIT and its invalidation: the old copy is served until the event arrives, and not after it (C4).

The change is made in the database with its event, as a writer does, and nobody invalidates. The event counts as handled
when Redis holds its version as the floor: no read that begins later may see less.
"""

from __future__ import annotations

import asyncio
import signal

import pytest
import redis.asyncio

from service.foundation.cache import entry_keys
from service.products.operations import change_product
from tests.stories.shop import Shop, until

pytestmark = pytest.mark.broker

SKU = "SKU-0650"


async def _floor(client: redis.asyncio.Redis) -> int:
    return int(await client.get(entry_keys(("product", SKU))[1]) or 0)


async def test_a_missed_invalidation_arrives_as_an_event(shop: Shop) -> None:
    anna, client = shop.login("anna-missed"), redis.asyncio.from_url(shop.urls["redis"])
    before = (await anna.get(f"/products/{SKU}")).json()["version"]
    workers = shop.signal("worker", signal.SIGSTOP)  # the lag of outbox and group is as long as we like
    try:
        async with shop.database.transaction():
            changed = await change_product(shop.database, SKU, {"price_minor": 4_321}, version=before)
        stale = [(await anna.get(f"/products/{SKU}")).json()["version"] for _ in range(20)]
    finally:
        for _ in workers:
            shop.signal("worker", signal.SIGCONT)
    assert set(stale) == {before}, "nobody told the cache, so it could not know"

    async def handled() -> bool:
        return await _floor(client) >= changed["version"]

    # The group itself is late at most by its pause, capped at 1 s (tests/unit/test_retry.py).
    await until(handled, "the event's version is the floor")
    fresh = await asyncio.gather(*(anna.get(f"/products/{SKU}") for _ in range(20)))
    assert {answer.json()["version"] for answer in fresh} == {changed["version"]}, "after the event nobody gets the old copy"
    assert fresh[0].json()["price_minor"] == 4_321
    await client.aclose()
