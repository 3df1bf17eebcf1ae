"""Alembic environment: the URL comes from settings, the metadata from service/models.py."""

from __future__ import annotations

import asyncio
from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from service.foundation import failpoints
from service.migrations import make_engine
from service.migrations.online import LOCK_TIMEOUT_MS
from service.models import metadata

_LOCK = 0x6D696772617465  # "migrate"
_TURN_TIMEOUT_S = 300.0


def include(_object: Any, name: str | None, kind: str, _reflected: object, _compare_to: Any) -> bool:
    """Daily partitions come and go with the reaper; they are not schema."""
    return not (kind == "table" and name is not None and name.startswith("outbox_sent_"))


def run(connection: Connection) -> None:
    """Migrate on this connection, each revision in its own transaction."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_object=include,
        transaction_per_migration=True,
        compare_type=True,
        on_version_apply=lambda **_: failpoints.hit_blocking("inside-migration"),
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate() -> None:
    """Open one connection; a lock wait longer than `LOCK_TIMEOUT_MS` fails instead of queueing writers behind it."""
    engine = make_engine(lock_timeout=str(LOCK_TIMEOUT_MS), application_name="plumbline-migrate")
    async with engine.connect() as connection:
        # One migration at a time: the second waits for the first and then finds nothing to do. It asks again and again
        # instead of waiting inside a statement: an index made concurrently waits for every statement that is older.
        async with asyncio.timeout(_TURN_TIMEOUT_S):
            while not await connection.scalar(text(f"SELECT pg_try_advisory_lock({_LOCK})")):
                await connection.rollback()
                await asyncio.sleep(0.2)
        await connection.commit()
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(migrate())
