"""`plumbline seed --orders N`: a shop with a past in which every invariant holds, as one the service itself had made.

The invariants are asked of the tables as the stories ask them; what retention has removed is asked of what is kept for ever.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from service.dev.seed import seed_catalogue
from service.dev.seed_orders import seed_orders
from service.foundation.db import Database
from service.migrations import upgrade
from service.settings import Settings, load_settings
from tests.support import invariants
from tests.support.servers import Servers

FIRST, THEN = 1_500, 2_500


@pytest.fixture(scope="module")
def past(servers: Servers) -> Settings:
    servers.postgres.run("psql", "-Xqc", "CREATE DATABASE past")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", re.sub(r"/plumbline$", "/past", servers.postgres.url))
        upgrade()
        return load_settings()


@pytest_asyncio.fixture(scope="module")
async def seeded(past: Settings) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Seeded twice, the second time to more orders, between what is there."""
    db = Database(past.db.model_copy(update={"pool_size": 1}), application="tests")
    await db.open()
    await seed_catalogue(db)
    await db.close()
    url = past.db.url.get_secret_value()
    assert await seed_orders(url, FIRST) == FIRST
    assert await seed_orders(url, THEN) == THEN
    assert await seed_orders(url, FIRST) == THEN, "a smaller number removes nothing"
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def test_stock_and_money_add_up(seeded: asyncpg.Connection[Any]) -> None:
    charged = await seeded.fetch("SELECT order_id::text, kind AS op, state, amount_minor FROM payment")
    for check in (
        invariants.stock_adds_up(seeded),
        invariants.nothing_is_oversold(seeded),
        invariants.money_is_right(seeded, [dict(row) for row in charged]),
        invariants.effects_happen_once(seeded, []),
    ):
        assert await check == []
    assert await seeded.fetchval("SELECT sum(quantity) FILTER (WHERE kind = 'ship') FROM stock_ledger") > FIRST / 2


async def test_a_version_is_the_number_of_events_also_of_those_long_sent(seeded: asyncpg.Connection[Any]) -> None:
    wrong = await seeded.fetchval("""
        SELECT count(*) FROM orders o
        WHERE o.version <> (SELECT count(*) FROM order_timeline t WHERE t.order_id = o.id)
           OR o.created_at > now() - interval '6 days' AND o.version <> (
                SELECT count(DISTINCT e.version) FROM (
                    SELECT aggregate_id, version FROM outbox UNION ALL SELECT aggregate_id, version FROM outbox_sent
                ) e WHERE e.aggregate_id = o.id::text)
    """)
    assert wrong == 0
    assert await invariants.events_are_in_order(seeded) == []
    applied = [said for said in await invariants.unapplied(seeded) if "in the outbox" not in said]
    assert applied == [], "what was sent was applied"


async def test_the_rest_is_kept_as_long_as_the_service_keeps_it(seeded: asyncpg.Connection[Any]) -> None:
    keys = await seeded.fetchval("SELECT count(*) FROM idempotency_key")
    young = await seeded.fetchval("SELECT count(*) FROM orders WHERE created_at > now() - interval '71 hours'")
    assert young <= keys < THEN / 5
    assert await seeded.fetchval("SELECT count(*) FROM idempotency_key WHERE expires_at < now()") == 0
    days = await seeded.fetchval("SELECT count(DISTINCT tableoid) FROM outbox_sent")
    assert days >= 7, "sent events lie in the partitions of their days"
    assert await seeded.fetchval("SELECT count(*) FROM outbox_sent_default") == 0


async def test_it_is_skewed_like_life(seeded: asyncpg.Connection[Any]) -> None:
    shares = "SELECT max(n) / sum(n) FROM (SELECT count(*) AS n FROM {} GROUP BY {}) counted"
    assert await seeded.fetchval(shares.format("orders", "customer_id")) > 20 / THEN, "the biggest customer"
    assert await seeded.fetchval(shares.format("order_line", "sku")) > 20 / 1000, "the product everybody buys"
    assert await seeded.fetchval("SELECT count(*) FROM orders WHERE created_at > now() - interval '90 days'") > THEN / 3, "the shop grew"
    assert await seeded.fetchval("SELECT count(*) FROM pg_stats WHERE tablename = 'orders'") > 5, "ANALYZE has run"
    unsorted = "SELECT count(*) FROM (SELECT created_at < lag(created_at) OVER (ORDER BY id) AS back FROM orders) o WHERE back"
    assert await seeded.fetchval(unsorted) <= THEN / 100, "ids rise with time, to the millisecond"
