"""Waiting on events with a deadline, and holding locks: what tests do instead of sleeping for luck."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx

from service.foundation.db import Connection
from tests.integration.facts import Facts


async def persist(send: Callable[[], Awaitable[httpx.Response]], *, deadline_s: float = 30.0) -> httpx.Response:
    """As a well-behaved client: the same request again on 409 in flight, 429 and 503."""
    async with asyncio.timeout(deadline_s):
        while True:
            response = await send()
            if response.status_code not in (429, 503) and response.json().get("code") != "idempotency-in-flight":
                return response
            await asyncio.sleep(random.uniform(0.005, 0.05))


async def until(look: Callable[[], Awaitable[Any]], what: str, *, deadline_s: float = 30.0) -> Any:
    """The first true thing `look` answers."""
    try:
        async with asyncio.timeout(deadline_s):
            while not (found := await look()):  # noqa: ASYNC110 - other processes and the database set no event of ours
                await asyncio.sleep(0.01)
            return found
    except TimeoutError:
        raise AssertionError(f"not within {deadline_s:g} s: {what}") from None


@contextlib.asynccontextmanager
async def holding(facts: Facts, sql: str, *values: Any) -> AsyncIterator[Connection]:
    """A transaction that has run `sql` and stays open for the block; rolled back at its end."""
    async with facts.db.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(sql, *values)
        try:
            yield connection
        finally:
            with contextlib.suppress(Exception):
                await transaction.rollback()


async def blocked_backends(facts: Facts, blocker: Connection) -> list[int]:
    """Processes of the API that wait for what `blocker` holds."""
    rows = await facts.rows(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'orders-api' AND $1 = ANY (pg_blocking_pids(pid))", blocker.get_server_pid()
    )
    return [row["pid"] for row in rows]
