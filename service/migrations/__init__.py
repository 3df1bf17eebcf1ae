"""Schema migrations: revisions are zero-padded integers, so "at least this one" can be compared.

`upgrade()` exits quietly when the database is ahead of the image (a rollback of the image must start).
`plumbline migrate` runs it; `db-wait` and readiness ask for `REQUIRED_REVISION` or later.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import asyncpg
from alembic import command
from alembic.config import Config

from service.foundation import failpoints
from service.foundation.db import CONNECTION_ERRORS, Connection
from service.settings import Settings, load_settings

REQUIRED_REVISION: Final = "0001"
LOCK_TIMEOUT_MS: Final = 2_000


def config() -> Config:
    """Alembic configuration without an ini file."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("version_locations", str(Path(__file__).parent / "versions"))
    made.set_main_option("path_separator", "os")
    return made


def sqlalchemy_url() -> str:
    """DATABASE_URL for SQLAlchemy's asyncpg dialect."""
    return load_settings().db.url.get_secret_value().replace("postgresql://", "postgresql+asyncpg://", 1)


def upgrade() -> None:
    """Migrate to the newest revision this code knows."""
    failpoints.arm(load_settings().app.failpoints)
    command.upgrade(config(), "head")


async def current_revision(connection: Connection | asyncpg.Connection[asyncpg.Record]) -> str | None:
    """The database's revision; None before the first migration."""
    try:
        found = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    return None if found is None else str(found)


async def read_revision(settings: Settings) -> str | None:
    """As `current_revision`, on a connection of its own. Raises what asyncpg raises when the server is away."""
    connection = await asyncpg.connect(settings.db.url.get_secret_value(), timeout=5)
    try:
        return await current_revision(connection)
    finally:
        await connection.close()


async def ahead_of_code(settings: Settings) -> bool:
    """True if the database was migrated by newer code."""
    found = await read_revision(settings)
    return found is not None and found > REQUIRED_REVISION


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
