"""Schema migrations: revisions are zero-padded integers, so "at least this one" can be compared.

`plumbline migrate` exits 0 when the database is ahead of the image (a rollback of the image must start), and stops before
revisions that older code could not live with; `db-wait` and readiness ask for `REQUIRED_REVISION` or later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from service.foundation import failpoints
from service.foundation.db import CONNECTION_ERRORS, Connection, login
from service.migrations.online import gave_way
from service.settings import Settings, load_settings

# What this code needs. Revisions above it remove what the code before needed: run them when that code is gone.
REQUIRED_REVISION: Final = "0003"
_TRIES: Final = 120
_PAUSE_S: Final = 0.5


def config() -> Config:
    """Alembic configuration without an ini file."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("version_locations", str(Path(__file__).parent / "versions"))
    made.set_main_option("path_separator", "os")
    return made


def make_engine(**server_settings: str) -> AsyncEngine:
    """An engine with the service's own log-in, one connection a use."""
    arguments = login(load_settings().db)
    url = arguments.pop("dsn").replace("postgresql://", "postgresql+asyncpg://", 1)
    return create_async_engine(url, poolclass=NullPool, connect_args=arguments | {"server_settings": server_settings})


def upgrade(to: str = "head") -> None:
    """Migrate to a revision, by default the newest this code knows. Gives way to transactions that hold what it needs, and tries again."""
    failpoints.arm(load_settings().app.failpoints)
    _patiently(lambda: command.upgrade(config(), to))


def downgrade(to: str) -> None:
    """Undo revisions down to `to`; the code that runs must not need what goes."""
    _patiently(lambda: command.downgrade(config(), to))


def _patiently(step: Callable[[], None]) -> None:
    for left in reversed(range(_TRIES)):
        try:
            step()
        except DBAPIError as error:
            if not (gave_way(error) and left):
                raise
            print(f"  a transaction holds the table: giving way, {left} more tries", flush=True)  # noqa: T201 - progress
            time.sleep(_PAUSE_S)
        else:
            return


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
