"""Which schema this code needs, and which one the database has: all that processes which serve want to know of migrations.

Revisions are zero-padded integers, so "at least this one" can be compared. Apart from `service/migrations`, because Alembic
takes a quarter of a second to import and serves nobody. Tests: tests/integration/test_migrations_are_safe.py.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import asyncpg

from service.foundation.db import CONNECTION_ERRORS, Connection, login
from service.settings import Settings

# What this code needs. Revisions above it remove what the code before needed: run them when that code is gone.
REQUIRED_REVISION: Final = "0003"


async def current_revision(connection: Connection | asyncpg.Connection[asyncpg.Record]) -> str | None:
    """The database's revision; None before the first migration."""
    try:
        found = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    return None if found is None else str(found)


async def read_revision(settings: Settings) -> str | None:
    """As `current_revision`, on a connection of its own. Raises what asyncpg raises when the server is away."""
    connection = await asyncpg.connect(**login(settings.db), timeout=5)
    try:
        return await current_revision(connection)
    finally:
        await connection.close()


async def target(settings: Settings) -> str | None:
    """Where `plumbline migrate` goes: all the way from nothing, else to what this code needs; None if it is there or further."""
    found = await read_revision(settings)
    if found is None:
        return "head"  # an empty database has no older code beside it
    return REQUIRED_REVISION if found < REQUIRED_REVISION else None


async def wait_for_schema(settings: Settings, *, timeout_s: float) -> bool:
    """Wait until the schema is there; says once a few seconds what it waits for."""
    deadline, said = time.monotonic() + timeout_s, ""
    while time.monotonic() < deadline:
        try:
            found = await read_revision(settings)
            state = f"schema at {found or 'nothing'}, waiting for {REQUIRED_REVISION}"
            if found is not None and found >= REQUIRED_REVISION:
                return True
        except (*CONNECTION_ERRORS, TimeoutError, asyncpg.PostgresError) as error:
            state = f"database not reachable ({type(error).__name__})"
        if state != said:
            print(state, flush=True)  # noqa: T201 - a person or a pod log reads this
            said = state
        await asyncio.sleep(0.5)
    return False
