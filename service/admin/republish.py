"""Events Kafka had and lost go back into the outbox: from a moment on, or those some group has not applied.

Rows move, with their sequence numbers, from `outbox_sent` to `outbox` in one statement a batch: killed halfway,
run it again. The relay publishes them in the order they were written; inboxes absorb what was applied already.
Tests: tests/integration/test_republish.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from service.foundation.clock import Clock, SystemClock
from service.foundation.db import Database

BATCH: Final = 200
_COLUMNS: Final = "seq, event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers, created_at"
_FROM: Final = ", ".join(f"s.{name}" for name in _COLUMNS.split(", "))
# `started` keeps what the relay sends meanwhile out of this run, so it ends.
_MOVE: Final = f"""
WITH chosen AS (
    SELECT s.seq, s.sent_at FROM outbox_sent s WHERE s.sent_at < $1 AND s.seq > $2 AND {{wanted}} ORDER BY s.seq LIMIT $3
), gone AS (
    DELETE FROM outbox_sent s USING chosen c WHERE s.seq = c.seq AND s.sent_at = c.sent_at RETURNING {_FROM}
), back AS (
    INSERT INTO outbox ({_COLUMNS}) OVERRIDING SYSTEM VALUE SELECT {_COLUMNS} FROM gone ORDER BY seq ON CONFLICT (seq) DO NOTHING
)
SELECT count(*), max(seq) FROM chosen
"""  # noqa: S608 - column names of ours
_SINCE: Final = "s.sent_at >= $4"
# The order goes on only if all of its groups hear of it; a letter a person has to decide about is nobody's loss.
_UNAPPLIED: Final = """
(
    s.aggregate_id IN (SELECT o.id::text FROM orders o WHERE o.closed_at IS NULL)
    OR EXISTS (
        SELECT FROM unnest($4::text[], $5::text[]) AS handled (consumer, type)
        WHERE handled.type = s.type
          AND NOT EXISTS (SELECT FROM inbox i WHERE i.consumer = handled.consumer AND i.event_id = s.event_id)
          AND NOT EXISTS (
              SELECT FROM dead_letter d WHERE d.consumer = handled.consumer AND d.event_id = s.event_id AND d.status <> 'replayed'
          )
    )
    OR (s.aggregate_type = 'order' AND NOT EXISTS (
        SELECT FROM order_timeline t WHERE t.order_id::text = s.aggregate_id AND t.version = s.version
    ))
)
"""


async def republish_since(
    db: Database, since: datetime, *, rate: float, progress: Callable[[int], None] = lambda moved: None, clock: Clock | None = None
) -> int:
    """Everything Kafka acknowledged at `since` or later; at most `rate` events a second. Answers how many."""
    return await _move_all(db, _SINCE, (since,), rate=rate, progress=progress, clock=clock or SystemClock())


async def republish_unapplied(
    db: Database,
    handled: Mapping[str, Sequence[str]],
    *,
    rate: float,
    progress: Callable[[int], None] = lambda moved: None,
    clock: Clock | None = None,
) -> int:
    """All events of unfinished orders, and every event that a group of `handled` (group → types) has not applied."""
    pairs = [(group, name) for group, names in handled.items() for name in names]
    values = ([group for group, _ in pairs], [name for _, name in pairs])
    return await _move_all(db, _UNAPPLIED, values, rate=rate, progress=progress, clock=clock or SystemClock())


async def _move_all(db: Database, wanted: str, values: tuple[object, ...], *, rate: float, progress: Callable[[int], None], clock: Clock) -> int:
    """Passes from the beginning until one finds nothing: a row whose move committed late is behind any cursor."""
    async with db.connection() as connection:
        started = await connection.fetchval("SELECT clock_timestamp()")
    query, total, begun = _MOVE.replace("{wanted}", wanted), 0, clock.monotonic()
    moved_in_pass = -1
    while moved_in_pass:
        moved_in_pass, cursor = 0, -1
        while cursor is not None:
            async with db.connection() as connection:
                row = await connection.fetchrow(query, started, cursor, BATCH, *values, timeout=60)
            assert row is not None  # an aggregate answers one row
            moved_in_pass, cursor, total = moved_in_pass + row[0], row[1], total + row[0]
            progress(total)
            await asyncio.sleep(max(0.0, total / rate - (clock.monotonic() - begun)))
    return total
