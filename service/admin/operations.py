"""What operators see and do: one overview, and the dead letters.

Reads are cheap enough to poll. Who did what by hand is in `audit_log`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from asyncpg import Record
from sqlalchemy import Integer, bindparam, func, select, text
from sqlalchemy.types import Interval

from service.errors import NotFound
from service.foundation.db import Connection, Statement
from service.models import dead_letter, orders
from service.outbox import backlog

_LIST: Final = Statement(
    select(dead_letter)
    .where(func.coalesce(bindparam("status"), dead_letter.c.status) == dead_letter.c.status)
    .where(func.coalesce(bindparam("consumer"), dead_letter.c.consumer) == dead_letter.c.consumer)
    .where(dead_letter.c.id < bindparam("before"))
    .order_by(dead_letter.c.id.desc())
    .limit(bindparam("limit", type_=Integer))
)
_GET: Final = Statement(select(dead_letter).where(dead_letter.c.id == bindparam("id")))
_BY_STATUS: Final = Statement(select(orders.c.status, func.count().label("count")).group_by(orders.c.status))
_STUCK: Final = Statement(
    select(func.count())
    .select_from(orders)
    .where(orders.c.closed_at.is_(None), orders.c.updated_at < func.now() - bindparam("older_than", type_=Interval))
)
_OPEN: Final = Statement(select(dead_letter.c.consumer, func.count().label("count")).where(text("status = 'open'")).group_by(dead_letter.c.consumer))
_LAST_ID: Final = UUID(int=2**128 - 1)


async def list_dead_letters(
    connection: Connection, *, status: str | None = "open", consumer: str | None = None, before: UUID | None = None, limit: int = 50
) -> list[Record]:
    """Newest first, keyset by id."""
    rows: list[Record] = await connection.fetch(*_LIST(status=status, consumer=consumer, before=before or _LAST_ID, limit=limit))
    return rows


async def get_dead_letter(connection: Connection, letter_id: UUID) -> Record:
    """The row. Raises `NotFound`."""
    row = await connection.fetchrow(*_GET(id=letter_id))
    if row is None:
        raise NotFound
    return row


async def count_orders(connection: Connection) -> dict[str, int]:
    """Status → orders."""
    return {row["status"]: row["count"] for row in await connection.fetch(*_BY_STATUS())}


async def count_stuck(connection: Connection, *, older_than_s: float) -> int:
    """Orders placed or reserved that nothing has moved for `older_than_s`."""
    return int(await connection.fetchval(*_STUCK(older_than=timedelta(seconds=older_than_s))))


async def overview(connection: Connection, *, stuck_after_s: float) -> dict[str, Any]:
    """Orders by state, outbox, open dead letters: the database's part of the overview."""
    rows, age_s = await backlog(connection)
    return {
        "orders": {"by_status": await count_orders(connection), "stuck": await count_stuck(connection, older_than_s=stuck_after_s)},
        "outbox": {"rows": rows, "oldest_age_s": round(age_s, 3)},
        "dead_letters": {row["consumer"]: row["count"] for row in await connection.fetch(*_OPEN())},
    }
