"""An API killed in the middle of a write: the same key works at once, and the order exists exactly once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx

from tests.stories.shop import Shop, until
from tests.support.clients import ApiClient

SKU, CALLS = "SKU-0800", 8


async def test_a_killed_request_leaves_its_key_usable(shop: Shop) -> None:
    anna = shop.login("anna-killed")
    async with connected(shop) as other, other.transaction():
        # The statement claims its key, then waits for this row: what is killed here is half done.
        await other.execute("SELECT FROM product WHERE sku = $1 FOR UPDATE", SKU)
        calls = [asyncio.create_task(attempt(anna, f"killed-{number}")) for number in range(CALLS)]
        await until(lambda: waiting(shop), "the requests wait inside their statement")
        for pid in shop.pids("api"):
            os.kill(pid, signal.SIGKILL)
        answers_before = await asyncio.gather(*calls)
        # On a slow host a call may have given up its lock wait just before the kill: 503 wrote nothing either.
        assert "no answer" in answers_before
        assert set(answers_before) <= {"no answer", "503"}
    answers = await asyncio.gather(*(shop.definite(lambda n=n: anna.place((SKU, 1), key=f"killed-{n}")) for n in range(CALLS)))
    assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers]
    assert await shop.database.fetchval("SELECT count(*) FROM orders WHERE customer_id = 'anna-killed'") == CALLS
    await shop.replaced("api", ())
    await shop.holds()


@asynccontextmanager
async def connected(shop: Shop) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A session of our own: `pg_stat_activity` does not change inside a transaction, so the watching one has none."""
    connection = await asyncpg.connect(shop.urls["database"])
    try:
        yield connection
    finally:
        await connection.close()


async def attempt(anna: ApiClient, key: str) -> str:
    """`no answer`, or the status the request got in spite of the kill."""
    try:
        return str((await anna.place((SKU, 1), key=key)).status_code)
    except httpx.HTTPError:
        return "no answer"


async def waiting(shop: Shop) -> bool:
    """Is at least one statement of the API waiting for a lock?"""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%idempotency_key%'"
    return bool(await shop.database.fetchval(query))
