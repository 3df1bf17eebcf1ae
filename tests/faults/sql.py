"""Trouble made inside PostgreSQL and Redis: read-only, held locks, cut sessions, aged orders, full or read-only Redis.

Each fault is a context manager or a single act; what it changes it changes back.
Tests: tests/faults/test_broker_and_sql.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import redis.asyncio as redis_py


@asynccontextmanager
async def _session(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(url, server_settings={"application_name": "fault"})
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def read_only(url: str) -> AsyncIterator[None]:
    """Every session's next transaction is read-only (25006), as on a demoted primary."""
    await _set(url, "ALTER SYSTEM SET default_transaction_read_only = on")
    try:
        yield
    finally:
        await _set(url, "ALTER SYSTEM RESET default_transaction_read_only")


@asynccontextmanager
async def held_lock(url: str, statement: str, *values: object) -> AsyncIterator[None]:
    """A transaction that ran `statement` (SELECT … FOR UPDATE) and stays open."""
    async with _session(url) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(statement, *values)
        yield
        await transaction.rollback()


async def cut_sessions(url: str, application: str) -> int:
    """pg_terminate_backend for every session of an application (57P01); answers how many."""
    async with _session(url) as connection:
        count = await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid()", application
        )
    return int(count)


async def kill_one_backend(url: str, application: str) -> int:
    """SIGKILL one backend: PostgreSQL restarts all sessions and recovers; answers the process id."""
    async with _session(url) as connection:
        pid = await connection.fetchval("SELECT pid FROM pg_stat_activity WHERE application_name = $1 LIMIT 1", application)
    if pid is None:
        raise LookupError(f"no session of {application!r}: is that process running?")
    os.kill(pid, signal.SIGKILL)
    return int(pid)


async def age_order(url: str, order_id: str, *, hours: int = 2) -> None:
    """Make an unfinished order and its charge this much older, so that the reaper sees it as overdue."""
    async with _session(url) as connection:
        await connection.execute(
            "UPDATE orders SET (created_at, updated_at) ="
            " (created_at - $2 * interval '1 hour', updated_at - $2 * interval '1 hour') WHERE id::text = $1",
            order_id,
            hours,
        )
        await connection.execute("UPDATE payment SET created_at = created_at - make_interval(hours => $2) WHERE order_id::text = $1", order_id, hours)


@asynccontextmanager
async def redis_full(url: str) -> AsyncIterator[None]:
    """Every write is refused (OOM)."""
    async with _redis(url) as client:
        before = [(name, str((await client.config_get(name))[name])) for name in ("maxmemory-policy", "maxmemory")]
        await client.config_set("maxmemory-policy", "noeviction")
        await client.config_set("maxmemory", "1")
        try:
            yield
        finally:
            for name, value in before:
                await client.config_set(name, value)


@asynccontextmanager
async def redis_replica(url: str) -> AsyncIterator[None]:
    """Every write is refused (READONLY), as on a demoted primary."""
    async with _redis(url) as client:
        await client.replicaof("127.0.0.1", 1)
        try:
            yield
        finally:
            await client.replicaof("NO", "ONE")


async def redis_forget(url: str) -> None:
    """FLUSHALL and SCRIPT FLUSH: no key and no script is left (NOSCRIPT)."""
    async with _redis(url) as client:
        await client.flushall()
        await client.script_flush()


@asynccontextmanager
async def _redis(url: str) -> AsyncIterator[redis_py.Redis]:
    client = redis_py.Redis.from_url(url, decode_responses=True)
    try:
        yield client
    finally:
        await client.aclose()


async def _set(url: str, statement: str) -> None:
    async with _session(url) as connection:
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(statement)
        await connection.execute("SELECT pg_reload_conf()")
