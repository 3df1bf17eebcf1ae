"""Schema migrations: revisions are zero-padded integers, so "at least this one" can be compared.

`plumbline migrate` exits 0 when the database is ahead of the image (a rollback of the image must start), and stops before
revisions that older code could not live with; `db-wait` and readiness ask for `service.revision.REQUIRED_REVISION` or later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from service.foundation import failpoints
from service.foundation.db import login
from service.migrations.online import gave_way
from service.settings import load_settings

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
