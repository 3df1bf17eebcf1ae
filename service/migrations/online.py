"""What a revision may do to a table that is being written to: short locks, indexes made beside the traffic, data in small batches.

Everything here can be repeated after it was cut off. tests/integration/test_migrations_are_safe.py refuses a revision
that does without; tests/integration/test_online_migration.py runs them under load.
"""

from __future__ import annotations

import time
from typing import Final

from alembic import op
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

LOCK_TIMEOUT_MS: Final = 100  # whoever waits for a strong lock makes everybody after it wait too
_PATIENCE_MS: Final = 300_000  # for locks that nobody's reads or writes wait behind
_TARGET_S: Final = 0.05
_SMALLEST, _FIRST, _LARGEST = 50, 500, 5_000
_SAY_S: Final = 2.0
_LOCK_NOT_AVAILABLE: Final = "55P03"


def gave_way(error: DBAPIError) -> bool:
    """True if a lock was not to be had within the lock timeout."""
    return getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE


def create_index(name: str, definition: str) -> None:
    """`CREATE INDEX CONCURRENTLY name definition`; what an interrupted attempt left is removed first."""
    _beside_traffic(f"DROP INDEX CONCURRENTLY IF EXISTS {name}", f"CREATE INDEX CONCURRENTLY {name} {definition}")


def drop_index(name: str) -> None:
    """`DROP INDEX CONCURRENTLY`; it waits for those who still read it, and nobody waits for it."""
    _beside_traffic(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def validate(table: str, constraint: str) -> None:
    """Check every row against a constraint that was added NOT VALID; reads and writes go on."""
    _beside_traffic(f"ALTER TABLE {table} VALIDATE CONSTRAINT {constraint}")


def _beside_traffic(*statements: str) -> None:
    """Outside a transaction, with patience: these locks let reads and writes pass."""
    with op.get_context().autocommit_block():
        op.execute(f"SET lock_timeout = {_PATIENCE_MS}")
        for statement in statements:
            op.execute(statement)
        op.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")


def backfill(statement: str, *, table: str, start: str) -> None:
    """Run `statement` from `start` to the end of the table, each batch its own transaction, at most half of the time.

    It takes `:after` (a key as text) and `:size`, and answers `last` (the batch's last key; NULL: no more rows) and `changed`.
    A batch grows and shrinks towards 50 ms, which is as long as a writer may have to wait for one of its rows.
    """
    with op.get_context().autocommit_block():
        _Backfill(op.get_bind(), statement, table, start).run()


class _Backfill:
    def __init__(self, connection: Connection, statement: str, table: str, start: str) -> None:
        self._connection, self._statement, self._table = connection, text(statement), table
        self._after, self._size, self._changed = start, _FIRST, 0

    def run(self) -> None:
        begin = said = time.monotonic()
        while self._batch():
            if time.monotonic() > said + _SAY_S:
                said = time.monotonic()
                print(f"  {self._table}: {self._changed:,} rows filled in {said - begin:.0f} s, up to {self._after}", flush=True)  # noqa: T201 - progress
        print(f"  {self._table}: {self._changed:,} rows filled in {time.monotonic() - begin:.0f} s", flush=True)  # noqa: T201 - progress

    def _batch(self) -> bool:
        begin = time.monotonic()
        try:
            last, changed = self._connection.execute(self._statement, {"after": self._after, "size": self._size}).one()
        except DBAPIError as error:
            if not gave_way(error):
                raise
            last, changed = self._after, 0  # a row of the batch is held by somebody: once more, smaller
        took = time.monotonic() - begin
        time.sleep(took)  # half of the time belongs to the traffic
        self._size = max(_SMALLEST, min(_LARGEST, int(self._size * min(2.0, max(0.5, _TARGET_S / max(took, 1e-6))))))
        if last is None:
            return False
        self._after, self._changed = last, self._changed + changed
        return True
