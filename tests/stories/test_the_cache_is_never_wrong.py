"""Redis killed, frozen, emptied or full of rubbish, PostgreSQL frozen: no reader gets a wrong body, and none a 5xx for it (C5).

Outside a Redis fault nobody gets less than what was acknowledged before he asked (C3), and once all is quiet every
cached version is its row's (C1). `python -m tests.proofs cache` runs the same and writes docs/cache.md.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.proofs.cache_faults import run_postgres_away, run_redis_faults
from tests.stories.shop import Shop

pytestmark = pytest.mark.alone  # readers and writers ask as fast as they can

_PAUSE_S = 0.02  # or the readers take the processor from the Redis that is to come back


async def test_the_cache_is_never_wrong(shop: Shop) -> None:
    rows = await run_redis_faults(shop, pause_s=_PAUSE_S)
    for row in rows:
        assert (row.wrong, row.server_errors) == (0, 0), f"{row.fault}: {row.examples[:3]}"
        assert row.reads > 0, row.fault
        assert row.writes > 0, row.fault
    calm, frozen = rows[0], rows[2]
    assert calm.behind == 0
    assert calm.outcomes["hit"] > 0
    assert frozen.outcomes["bypass"] > 0, "the fault had no effect"


async def test_with_postgresql_away_cached_orders_are_served_for_five_minutes(shop: Shop) -> None:
    anna = shop.login("anna-away")
    orders = [answer.json() for answer in await asyncio.gather(*(anna.place(("SKU-0007", 1)) for _ in range(12)))]
    await shop.become(orders, "paid")
    away = await run_postgres_away(shop, orders, anna)
    assert (away.served, away.refused_too_old, away.refused_not_cached, away.other) == (6, 3, 3, 0)
    assert 200 <= away.oldest_age_s <= 300
    await shop.holds()
