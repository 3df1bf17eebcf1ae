"""The reaper: expires orders nobody finishes, and removes what has served its time, in small batches.

Expiry is careful, because it gives stock and money back: not while an order's event is unpublished, not while a
charge may be running, and not at all while the outbox is behind. Everything here may run twice.
Tests: tests/integration/test_reaper.py.
"""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, date, datetime, timedelta
from typing import Final

import asyncpg

from service.errors import Unavailable
from service.events import SUBSCRIPTIONS
from service.foundation import metrics
from service.foundation.db import CONTENTION_ERRORS, Connection, Database
from service.foundation.lifecycle import Lifecycle
from service.foundation.log import get_logger
from service.orders.operations import move
from service.settings import Settings
from workers.dead_letters import RELAY

log = get_logger(__name__)

_TURN_S: Final = 1.0
_EXPIRE_BATCH: Final = 100
_DELETE_BATCH: Final = 1_000
_BEHIND_S: Final = 60.0
_PARTITION_DAYS_AHEAD: Final = 3

# The oldest row that nobody set aside: by seq, which has an index, as created_at has not.
_BEHIND: Final = """
SELECT coalesce((
    SELECT b.created_at < now() - $1::interval FROM outbox b
    WHERE NOT EXISTS (SELECT FROM dead_letter d WHERE d.consumer = $2 AND d.status = 'open' AND d.aggregate_id = b.aggregate_id)
    ORDER BY b.seq LIMIT 1
), false)
"""
_CANDIDATES: Final = """
SELECT o.id FROM orders o
WHERE o.closed_at IS NULL AND o.created_at < now() - $1::interval AND o.updated_at < now() - $1::interval
  AND NOT EXISTS (SELECT FROM outbox b WHERE b.aggregate_id = o.id::text)
  AND NOT EXISTS (
      SELECT FROM payment p
      WHERE p.order_id = o.id AND p.kind = 'charge' AND p.state = 'started' AND p.created_at > now() - $2::interval
  )
ORDER BY o.created_at
LIMIT $3
"""
# SKIP LOCKED: a key that is being replayed right now can wait for the next turn. By ctid, which the lock keeps:
# joined by its key, the planner reads the whole table for a thousand rows.
_OLD_KEYS: Final = """
DELETE FROM idempotency_key WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency_key WHERE expires_at < now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
))
"""
_OLD_INBOX: Final = """
DELETE FROM inbox WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM inbox WHERE processed_at < now() - $2::interval ORDER BY processed_at LIMIT $1 FOR UPDATE SKIP LOCKED
))
"""
_OLD_LETTERS: Final = """
DELETE FROM dead_letter WHERE id IN (
    SELECT id FROM dead_letter WHERE status <> 'open' AND resolved_at < now() - $2::interval LIMIT $1 FOR UPDATE SKIP LOCKED
)
"""
# Rows from before the first partition was made.
_OLD_SENT: Final = """
DELETE FROM outbox_sent_default WHERE (seq, sent_at) IN (
    SELECT seq, sent_at FROM outbox_sent_default WHERE sent_at < now() - $2::interval LIMIT $1 FOR UPDATE SKIP LOCKED
)
"""
_OPEN_LETTERS: Final = "SELECT consumer, count(*) FROM dead_letter WHERE status = 'open' GROUP BY consumer"
_STANDING: Final = """
SELECT status, extract(epoch FROM now() - min(updated_at))::float8 FROM orders WHERE closed_at IS NULL GROUP BY status
"""
_PARTITIONS: Final = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'outbox_sent'::regclass"


class Reaper:
    """One turn a second; each turn does a bounded amount of work, and a backlog is worked off at half of the time."""

    def __init__(self, settings: Settings, db: Database, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._db = db
        self._lifecycle = lifecycle

    async def run(self) -> None:
        """Turn until the process stops; at most half of the time is spent working."""
        while not self._lifecycle.stopping.is_set():
            self._lifecycle.beat("reaper")
            started = time.monotonic()
            try:
                await self.run_once()
            except (Unavailable, asyncpg.PostgresError) as error:
                # Whatever it is (a lock somebody holds, a partition another reaper just made): next turn.
                metrics.caught.labels("reaper").inc()
                log.warning("reaper.turn_failed", error=type(error).__name__)
            await self._lifecycle.sleep(max(_TURN_S, time.monotonic() - started))
        self._lifecycle.forget("reaper")

    async def run_once(self) -> int:
        """One turn; answers the number of orders expired."""
        expired = await self.expire_orders()
        await self.purge()
        await self.measure()
        await self.turn_partitions(datetime.now(UTC).date())
        return expired

    async def purge(self) -> None:
        """Remove what has served its time: from each table in turn, until all gave less than a batch or the turn has lasted its second."""
        worker, until = self._settings.worker, time.monotonic() + _TURN_S
        waiting: list[tuple[str, *tuple[timedelta, ...]]] = [
            (_OLD_KEYS,),
            (_OLD_INBOX, timedelta(days=worker.inbox_retention_d)),
            (_OLD_LETTERS, timedelta(days=worker.dead_letter_retention_d)),
            (_OLD_SENT, timedelta(days=worker.outbox_sent_retention_d)),
        ]
        while waiting:
            waiting = [step for step in waiting if await self._delete(*step) == _DELETE_BATCH]
            if time.monotonic() > until:
                break

    async def _delete(self, sql: str, *retention: object) -> int:
        """One batch; answers its rows."""
        async with self._db.connection() as connection:
            return int((await connection.execute(sql, _DELETE_BATCH, *retention)).split()[1])

    async def measure(self) -> None:
        """What waits for a person, and how long unfinished orders have stood still."""
        async with self._db.connection() as connection:
            letters = dict(await connection.fetch(_OPEN_LETTERS))
            ages = dict(await connection.fetch(_STANDING))
        for group in (*SUBSCRIPTIONS, RELAY):
            metrics.dead_letters_open.labels(group).set(letters.get(group, 0))
        for status in ("placed", "reserved"):
            metrics.unfinished_age.labels(status).set(ages.get(status, 0.0))

    async def expire_orders(self) -> int:
        """Expire what is overdue; answers how many. Nothing while the outbox is behind."""
        orders = self._settings.orders
        async with self._db.connection() as connection:
            if await connection.fetchval(_BEHIND, timedelta(seconds=_BEHIND_S), RELAY):
                return 0
            found = await connection.fetch(
                _CANDIDATES, timedelta(seconds=orders.expire_after_s), timedelta(seconds=orders.charge_grace_s), _EXPIRE_BATCH
            )
        expired = 0
        for row in found:
            with contextlib.suppress(*CONTENTION_ERRORS):  # somebody works on it right now: not overdue after all
                async with self._db.transaction() as connection:
                    expired += await move(connection, row["id"], "expire", reason="not finished in time") is not None
        if expired:
            metrics.expired_orders.inc(expired)
            log.info("orders.expired", count=expired)
        return expired

    async def turn_partitions(self, today: date) -> list[str]:
        """Make the next days' partitions of `outbox_sent` and drop those past retention; answers the dropped ones."""
        async with self._db.connection() as connection:
            present = {row[0] for row in await connection.fetch(_PARTITIONS)}
            for ahead in range(_PARTITION_DAYS_AHEAD + 1):
                day = today + timedelta(days=ahead)
                if (name := _partition(day)) not in present and not (ahead == 0 and await self._default_in_use(connection)):
                    await connection.execute(
                        f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF outbox_sent FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
                    )
            oldest_kept = _partition(today - timedelta(days=self._settings.worker.outbox_sent_retention_d))
            dropped = sorted(name for name in present if name.startswith("outbox_sent_2") and name < oldest_kept)
            for name in dropped:
                await connection.execute(f"DROP TABLE IF EXISTS {name}")
        return dropped

    @staticmethod
    async def _default_in_use(connection: Connection) -> bool:
        """Rows of today in the default partition would refuse a partition for today: they stay where they are."""
        return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM outbox_sent_default)"))


def _partition(day: date) -> str:
    return f"outbox_sent_{day:%Y%m%d}"
