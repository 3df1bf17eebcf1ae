"""Revisions 0002 to 0004 and back to 0001 beside writers of both codes: no write fails, and every order is as its writer left it.

The small form of tests/integration/test_online_migration.py, which does it with whole pods on a million rows.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from uuid import UUID

import asyncpg
import pytest

from bench.database.rollout import _FILL
from service.errors import ServiceError
from service.foundation.db import Database
from service.migrations import downgrade, upgrade
from service.orders.operations import move
from service.outbox import new_id
from service.settings import Settings, load_settings
from tests.support.servers import Servers

ROWS = 5_000
# As code of revision 0001 said them: it knows no `closed_at`.
PLACE = "INSERT INTO orders (id, customer_id, status, version, currency, total_minor) VALUES ($1, 'old', 'placed', 1, 'EUR', 1)"
CANCEL = "UPDATE orders SET status = 'cancelled', version = version + 1, updated_at = now() WHERE id = $1"


class Writers:
    """Two writers in a thread of their own, told in which code they write; the first error of one ends it."""

    def __init__(self, settings: Settings) -> None:
        self.codes = ["old", "old"]
        self.cancelled: set[UUID] = set()
        self.failed: list[BaseException] = []
        self._written: Counter[tuple[int, str]] = Counter()
        # Who is kept waiting by a lock for so long fails; the service gives up after half a second.
        self._settings = settings.db.model_copy(
            update={"pool_size": 2, "lock_timeout_ms": 5_000, "statement_timeout_ms": 10_000, "command_timeout_ms": 10_000}
        )
        self._news, self._stopping = threading.Condition(), False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write_all()))
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._thread.join(60)

    def now_write(self, *codes: str) -> None:
        """From now on they write as these codes do; comes back when each has done so ten times."""
        self.codes[:] = codes
        wanted = {writer: self._written[writer] + 10 for writer in enumerate(codes)}
        with self._news:
            assert self._news.wait_for(lambda: self.failed or all(self._written[w] >= count for w, count in wanted.items()), timeout=60)
        assert self.failed == []

    async def _write_all(self) -> None:
        db = Database(self._settings, application="writers")
        await db.open()
        await asyncio.gather(self._write(db, 0), self._write(db, 1))
        await db.close()

    async def _write(self, db: Database, number: int) -> None:
        try:
            while not self._stopping:
                code, order_id = self.codes[number], new_id()
                async with db.transaction() as connection:
                    await connection.execute(PLACE, order_id)
                async with db.transaction() as connection:
                    await (connection.execute(CANCEL, order_id) if code == "old" else move(connection, order_id, "cancel"))
                self.cancelled.add(order_id)
                self._written[number, code] += 1
                with self._news:
                    self._news.notify()
        except (ServiceError, asyncpg.PostgresError) as error:
            self.failed.append(error)
            with self._news:
                self._news.notify()


@pytest.fixture
def shop(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """A database of its own at 0001 with orders of the past, and psql for it."""
    servers.postgres.run("psql", "-Xqc", "CREATE DATABASE rolling")
    monkeypatch.setenv("DATABASE_URL", re.sub(r"/plumbline$", "/rolling", servers.postgres.url))
    upgrade("0001")

    def say(sql: str) -> str:
        return servers.postgres.run("psql", "-XAtqc", sql, database="rolling")

    say(_FILL.format(count=ROWS))
    yield say
    servers.postgres.run("psql", "-Xqc", "DROP DATABASE rolling WITH (FORCE)")


def test_old_and_new_code_write_through_expand_fill_and_contract_and_all_the_way_back(shop: Callable[[str], str]) -> None:
    writers = Writers(load_settings())
    try:
        writers.now_write("old", "old")
        for revision in ("0002", "0003"):
            upgrade(revision)
            writers.now_write("old", "old")
        writers.now_write("old", "new")
        writers.now_write("new", "new")
        upgrade("0004")
        writers.now_write("new", "new")
        wrong = shop("SELECT count(*) FROM orders WHERE (closed_at IS NULL) <> (status IN ('placed', 'reserved'))")
        assert (wrong, shop("SELECT convalidated FROM pg_constraint WHERE conname = 'ck_orders_closed_when_ended'")) == ("0\n", "t\n")
        downgrade("0003")
        writers.now_write("new", "old")
        writers.now_write("old", "old")
        downgrade("0001")
        writers.now_write("old", "old")
    finally:
        writers.stop()
    assert writers.failed == []
    found = shop("SELECT id, status, version FROM orders WHERE created_at > now() - interval '1 day'").split()
    assert sorted(found) == sorted(f"{order_id}|cancelled|2" for order_id in writers.cancelled)
