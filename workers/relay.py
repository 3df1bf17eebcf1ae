"""The relay: outbox rows to Kafka, in order for each aggregate, removed only when Kafka has them.

One is active, by an advisory lock on its own session; others stand by. A crash between the acknowledgement and
the move repeats events (the inbox absorbs them); nothing is ever skipped, because what is not moved stays.
Why no `seq > last` cursor: late committers would be lost (docs/adr/0006). Tests: tests/integration/test_relay.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
from asyncpg import Record

from service.events import PARTITIONS
from service.foundation import failpoints, metrics
from service.foundation.db import CONNECTION_ERRORS, Database, login
from service.foundation.lifecycle import Lifecycle
from service.foundation.log import get_logger
from service.outbox import backlog
from service.settings import Settings
from workers.dead_letters import park_outbox_row, set_aside
from workers.publisher import Publisher

log = get_logger(__name__)

_LOCK: Final = 0x706C756D62  # "plumb": one relay a database
_BATCH: Final = 500
_POLL_S: Final = 0.01  # the next look after one that found nothing; twice that after each further one
_FULL_SCAN_S: Final = 1.0
_PING_S: Final = 2.0
_IDLE_SESSION_MS: Final = 10_000
_RETRY_S: Final = 1.0
_STANDBY_S: Final = 1.0

_READ: Final = """
SELECT seq, event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers, created_at
FROM outbox
WHERE seq >= $1 AND aggregate_id <> ALL ($2::text[])
ORDER BY seq
LIMIT $3
"""
# Lowest row there is, oldest transaction that still runs, and one younger than any that has drawn a number by now.
_HORIZON: Final = """
SELECT (SELECT seq FROM outbox ORDER BY seq LIMIT 1) AS lowest,
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest, pg_current_xact_id()::text::bigint AS youngest
"""
# One statement: a row is either still to be sent or known to be sent, never neither.
# Replays go to a retry topic and are not kept: outbox_sent is what a wiped Kafka is rebuilt from, and has the event itself.
_MOVE: Final = """
WITH gone AS (DELETE FROM outbox WHERE seq = ANY ($1::bigint[]) RETURNING *)
INSERT INTO outbox_sent (seq, event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers, created_at)
SELECT seq, event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers, created_at FROM gone
WHERE topic = ANY ($2::text[])
"""
_KEPT: Final = list(PARTITIONS)


class Relay:
    """Publishes while it holds the lock."""

    def __init__(self, settings: Settings, db: Database, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._db = db
        self._lifecycle = lifecycle
        self._publisher = Publisher(settings.kafka)
        self._floor = 0
        # A floor-to-be, and the transaction before which all must have ended until it is one.
        self._candidate: tuple[int, int] | None = None
        self._scanned_at = float("-inf")
        self._blocked: set[str] = set()
        self._lost = asyncio.Event()

    async def run(self) -> None:
        """Stand by, publish, stand by again, until the process stops."""
        while not self._lifecycle.stopping.is_set():
            self._lifecycle.beat("relay")
            try:
                async with self._leadership() as leads:
                    if leads:
                        await self._lead()
            except (*CONNECTION_ERRORS, TimeoutError, asyncpg.PostgresError) as error:
                metrics.caught.labels("relay").inc()
                log.warning("relay.database_away", error=type(error).__name__)
            await self._lifecycle.sleep(_STANDBY_S)
        await self._publisher.stop()
        self._lifecycle.forget("relay")

    async def _lead(self) -> None:
        log.info("relay.leads")
        self._floor, self._candidate, self._scanned_at = 0, None, float("-inf")
        pause = _POLL_S
        while not self._lifecycle.stopping.is_set() and not self._lost.is_set():
            self._lifecycle.beat("relay")
            try:
                moved = await self._unless_lost(self.run_once())
            except Exception as error:  # noqa: BLE001 - the relay's process loop: whatever it is, what is not moved stays
                metrics.caught.labels("relay").inc()
                log.warning("relay.retrying", error=type(error).__name__)
                await self._publisher.stop()
                await self._lifecycle.sleep(_RETRY_S)
                continue
            if not moved:
                await self._lifecycle.sleep(pause)
            pause = _POLL_S if moved else min(2 * pause, self._settings.worker.poll_max_s)

    async def _unless_lost(self, turn: Coroutine[Any, Any, int]) -> int:
        """Run a turn, but cut it off when the lock is lost: another relay may be publishing already."""
        running, lost = asyncio.ensure_future(turn), asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({running, lost}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            raise ConnectionError("the relay's lock is lost")
        finally:
            for task in (running, lost):
                task.cancel()
            await asyncio.gather(running, lost, return_exceptions=True)

    async def run_once(self) -> int:
        """Publish one batch; answers the number of events acknowledged and moved."""
        rows = await self._read()
        if not rows:
            return 0
        sent = await self._publisher.send(rows)
        if sent.refused:
            await self._set_aside(sent.refused)
        await failpoints.hit("after-send-before-move")
        if sent.acknowledged:
            await self._move(sent.acknowledged)
        return len(sent.acknowledged)

    # -- reading and moving

    async def _read(self) -> list[Record]:
        """The oldest rows; once a second without the floor, which finds late committers."""
        full = time.monotonic() - self._scanned_at >= _FULL_SCAN_S
        async with self._db.connection() as connection:
            if full:
                self._scanned_at = time.monotonic()
                self._blocked = await set_aside(connection)
                metrics.outbox_blocked.set(len(self._blocked))
                span, age_s = await backlog(connection)
                metrics.outbox_rows.set(span)
                metrics.outbox_age.set(age_s)
                self._raise_floor(await connection.fetchrow(_HORIZON))
            rows: list[Record] = await connection.fetch(_READ, 0 if full else self._floor, list(self._blocked | self._publisher.postponed()), _BATCH)
        return rows

    def _raise_floor(self, horizon: Record) -> None:
        """Nothing may commit below the floor any more: quick looks would miss it, and send what follows it of its aggregate (O2).

        A number is drawn inside a transaction: once all that ran when `lowest` was seen have ended, what is below it is visible.
        """
        lowest, oldest, youngest = horizon
        if lowest is None:
            return
        if self._candidate is not None and oldest >= self._candidate[1]:
            self._floor, self._candidate = min(self._candidate[0], lowest), None
        self._candidate = self._candidate or (lowest, youngest)

    async def _move(self, rows: Sequence[Record]) -> None:
        await failpoints.hit("before-outbox-move")
        async with self._db.connection() as connection:
            await connection.execute(_MOVE, [row["seq"] for row in rows], _KEPT)
        await failpoints.hit("after-outbox-move")
        now = datetime.now(UTC)
        for row in rows:
            metrics.commit_to_kafka.observe(max(0.0, (now - row["created_at"]).total_seconds()))
        metrics.outbox_published.inc(len(rows))

    async def _set_aside(self, rows: Sequence[Record]) -> None:
        """Rows Kafka refuses become dead letters of consumer `relay`; their aggregates wait, others go on."""
        async with self._db.transaction() as connection:
            for row in rows:
                await park_outbox_row(connection, row, "Kafka refuses the message as too large")
        self._blocked |= {row["aggregate_id"] for row in rows}

    # -- leadership

    @contextlib.asynccontextmanager
    async def _leadership(self) -> Any:
        """True inside if this relay holds the lock; the session ends when the process is stopped for 10 s."""
        session = await asyncpg.connect(
            **login(self._settings.db),
            timeout=5,
            command_timeout=5,
            server_settings={"application_name": "plumbline-relay-lock", "idle_session_timeout": str(_IDLE_SESSION_MS)},
        )
        try:
            leads = bool(await session.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK))
            metrics.relay_active.set(leads)
            self._lost.clear()
            pinging = asyncio.create_task(self._ping(session), name="relay-ping") if leads else None
            try:
                yield leads
            finally:
                if pinging is not None:
                    pinging.cancel()
        finally:
            metrics.relay_active.set(0)
            session.terminate()

    async def _ping(self, session: asyncpg.Connection[Record]) -> None:
        """Keep the session; without it we may not be the only one: stop producing at once."""
        try:
            while True:
                await asyncio.sleep(_PING_S)
                await session.fetchval("SELECT 1")
        except (*CONNECTION_ERRORS, TimeoutError, asyncpg.PostgresError) as error:
            log.warning("relay.lock_lost", error=type(error).__name__)
            self._lost.set()
