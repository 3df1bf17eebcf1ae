"""The plans that docs/database.md claims, in a shop of a million orders, seeded as `plumbline seed --orders` does it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from bench.database.claims import CLAIMS, Claim, complaints, pick
from bench.database.lab import SESSION
from service.dev.seed import seed_catalogue
from service.dev.seed_orders import seed_orders
from service.foundation.db import Database
from service.migrations import upgrade
from service.settings import load_settings
from tests.support.servers import Servers

pytestmark = pytest.mark.slow

ORDERS = 1_000_000


@pytest_asyncio.fixture(scope="module")
async def million(servers: Servers) -> AsyncIterator[asyncpg.Connection[Any]]:
    servers.postgres.run("psql", "-Xqc", "CREATE DATABASE million")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", re.sub(r"/plumbline$", "/million", servers.postgres.url))
        await asyncio.to_thread(upgrade)  # it has an event loop of its own
        settings = load_settings().db
    db = Database(settings.model_copy(update={"pool_size": 1}), application="tests")
    await db.open()
    await seed_catalogue(db)
    await db.close()
    url = settings.url.get_secret_value()
    assert await seed_orders(url, ORDERS) == ORDERS
    connection = await asyncpg.connect(url, server_settings=SESSION)
    await connection.execute("VACUUM ANALYZE")
    yield connection
    await connection.close()
    servers.postgres.run("psql", "-Xqc", "DROP DATABASE million WITH (FORCE)")


@pytest.mark.parametrize("claim", CLAIMS, ids=[claim.name for claim in CLAIMS])
async def test_the_plan_that_is_claimed(claim: Claim, million: Any) -> None:
    assert await complaints(million, claim, await pick(million)) == []


@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if claim.index.startswith("ix_")], ids=lambda claim: claim.index)
async def test_a_dropped_index_is_noticed(claim: Claim, million: Any) -> None:
    assert await complaints(million, claim, await pick(million), planted=f"DROP INDEX {claim.index}") != []
