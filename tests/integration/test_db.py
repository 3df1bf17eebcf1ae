"""The pool: nothing leaks from one use to the next, waiting is fair and bounded, what breaks is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from service.errors import DependencyUnavailable, Overloaded
from service.foundation.db import Database, retry_contention
from service.settings import Settings
from tests.support.servers import Servers

_DEADLINE_S = 20.0


@pytest_asyncio.fixture
async def small(settings: Settings) -> AsyncIterator[Database]:
    """A pool of two with a short queue."""
    db = Database(settings.db.model_copy(update={"pool_size": 2, "queue_timeout_ms": 300}), application="small-pool")
    await db.open()
    yield db
    await db.close()


async def _state(db: Database) -> tuple[int, int, str]:
    """(advisory locks of this session, transactions open, its lock_timeout)."""
    async with db.connection() as connection:
        locks = await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
        return locks, int(connection.is_in_transaction()), await connection.fetchval("SHOW lock_timeout")


async def _fail_in_a_transaction(db: Database) -> None:
    async with db.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(42)")
        await connection.execute("SET LOCAL lock_timeout = '1s'")
        await connection.execute("SELECT 1/0")


async def test_a_used_session_keeps_no_lock_no_setting_and_no_transaction(settings: Settings) -> None:
    db = Database(settings.db.model_copy(update={"pool_size": 1}), application="one")
    await db.open()
    before = await _state(db)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await _fail_in_a_transaction(db)
    assert await _state(db) == before
    async with db.connection() as connection:
        await connection.execute("BEGIN")  # left open by mistake: the session is cut, not handed on
        mistaken = await connection.fetchval("SELECT pg_backend_pid()")
    async with db.connection() as connection:
        assert await connection.fetchval("SELECT pg_backend_pid()") != mistaken
    assert await _state(db) == before
    await db.close()


async def test_waiting_for_a_connection_is_bounded(small: Database) -> None:
    async with small.connection(), small.connection():
        with pytest.raises(Overloaded):
            async with small.connection():
                pass
    async with small.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_the_first_to_wait_is_the_first_to_be_served(small: Database) -> None:
    served: list[int] = []
    release = asyncio.Event()

    async def hold() -> None:
        async with small.connection():
            await release.wait()

    async def wait(number: int) -> None:
        async with small.connection():
            served.append(number)

    holders = [asyncio.create_task(hold()) for _ in range(2)]
    await asyncio.sleep(0)
    waiters = []
    for number in range(6):
        waiters.append(asyncio.create_task(wait(number)))
        await asyncio.sleep(0)
    release.set()
    await asyncio.gather(*holders, *waiters)
    assert served == sorted(served)


async def test_a_statement_that_times_out_costs_its_connection_and_is_unavailable(settings: Settings) -> None:
    db = Database(settings.db.model_copy(update={"pool_size": 1, "command_timeout_ms": 1_000}), application="slow")
    await db.open()
    async with db.connection() as connection:
        first = await connection.fetchval("SELECT pg_backend_pid()")
    with pytest.raises(DependencyUnavailable):
        async with db.connection() as connection:
            await connection.execute("SELECT pg_sleep(30)")
    async with db.connection() as connection:
        assert await connection.fetchval("SELECT pg_backend_pid()") != first
    await db.close()


async def test_killed_sessions_are_replaced(small: Database, db: Database) -> None:
    async with db.connection() as admin:
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'small-pool'")
    answered = 0
    async with asyncio.timeout(_DEADLINE_S):
        while answered < 4:  # a dead session is found by the first who uses it: one failure each, then new ones
            try:
                async with small.connection() as connection:
                    answered += await connection.fetchval("SELECT 1")
            except DependencyUnavailable:
                await asyncio.sleep(0)
    assert small.lost_since is None


async def test_a_server_that_is_away_opens_the_breaker_and_a_probe_closes_it(small: Database) -> None:
    good = small._connect_arguments
    small._connect_arguments = lambda: good() | {"dsn": "postgresql://nobody@127.0.0.1:1/none", "timeout": 1.0}  # type: ignore[method-assign]
    for connection in small._free:
        connection.terminate()
    for _ in range(3):
        with pytest.raises(DependencyUnavailable):
            async with small.connection():
                pass
    assert small.breaker.state == "open"
    small._connect_arguments = good  # type: ignore[method-assign]
    async with asyncio.timeout(_DEADLINE_S):
        while small.breaker.state != "closed":  # noqa: ASYNC110 - the probe has no event to wait for
            await asyncio.sleep(0.05)
    async with small.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_contention_is_retried_and_then_overloaded() -> None:
    calls = []

    async def attempt() -> None:
        calls.append(1)
        raise asyncpg.DeadlockDetectedError("deadlock detected")

    with pytest.raises(Overloaded):
        await retry_contention(attempt)
    assert len(calls) == 3


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
async def test_a_server_that_may_forget_is_refused_at_start_up(servers: Servers, settings: Settings, setting: str) -> None:
    session = await asyncpg.connect(servers.postgres.url)

    async def turned(value: str, statement: str) -> None:
        await session.execute(statement)
        await session.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(30):
            while await session.fetchval(f"SHOW {setting}") != value:  # noqa: ASYNC110 - the server reads its file when it likes
                await asyncio.sleep(0.02)

    database = Database(settings.db, application="tests")
    try:
        await turned("off", f"ALTER SYSTEM SET {setting} = off")
        with pytest.raises(DependencyUnavailable, match=f"runs with {setting} off"):
            await database.open()
    finally:
        await turned("on", f"ALTER SYSTEM RESET {setting}")
        await session.close()
    await database.open()
    await database.close()
