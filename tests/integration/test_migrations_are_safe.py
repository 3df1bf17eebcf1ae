"""No revision may stop the writers: what each says to PostgreSQL is recorded and read by squawk, and by five rules it lacks.

The baseline is let off by being first: squawk knows that a table made in the same revision has no writers yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from service.migrations import config, downgrade, make_engine, online, upgrade
from service.revision import REQUIRED_REVISION
from tests.support.servers import Servers

# The timeout is the connection's (env.py), held below; the rest is taste, not safety.
_LET_OFF = "require-lock-timeout,require-statement-timeout,require-timeout-settings"
_REMOVAL = "ban-drop-"
# Removals that waited above REQUIRED_REVISION until the code before was gone; one is written down here when that number passes it.
_WAITED = {"0004"}
_STRONG = re.compile(
    r"^\s*(ALTER TABLE(?!.*\bVALIDATE\b)|(CREATE|DROP) TRIGGER|DROP TABLE|(CREATE|DROP) INDEX(?! CONCURRENTLY))", re.IGNORECASE | re.DOTALL
)
_BATCHED = re.compile(r"\bLIMIT\b", re.IGNORECASE)
_MASS = re.compile(r"^\s*(WITH\b.*)?\b(UPDATE|DELETE FROM)\s+(?!alembic_version)", re.IGNORECASE | re.DOTALL)
_REWRITES = re.compile(
    r"^\s*(VACUUM\s+FULL|CLUSTER|LOCK\s+TABLE|TRUNCATE|REFRESH\s+MATERIALIZED)|GENERATED ALWAYS AS .* STORED", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True)
class Said:
    """A statement, and whether it ran outside a transaction."""

    text: str
    alone: bool


@contextmanager
def recording() -> Iterator[list[Said]]:
    said: list[Said] = []

    def note(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(Said(statement.strip(), connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def complaints(said: list[Said], folder: Path, *, removes: bool = False) -> set[str]:
    """Names of the rules that these statements break."""
    changes = [entry for entry in said if "alembic_version" not in entry.text and not re.match(r"(?i)\s*(SELECT|SET|SHOW|select)\b", entry.text)]
    script = folder / "revision.sql"
    script.write_text("".join(f"{entry.text};\n" for entry in changes))
    command = [
        str(Path(sys.executable).with_name("squawk")),
        "--reporter",
        "json",
        "--pg-version",
        "16",
        "--assume-in-transaction",
        f"--exclude={_LET_OFF}",
    ]
    answer = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False)
    assert answer.returncode in (0, 1), answer.stderr
    broken = {rule for found in json.loads(answer.stdout or "[]") if not (rule := found["rule_name"]).startswith("prefer-")}
    broken -= {"ban-concurrent-index-creation-in-transaction"}  # squawk cannot see what runs alone
    broken |= {"concurrently-in-transaction" for entry in changes if "CONCURRENTLY" in entry.text.upper() and not entry.alone}
    broken |= {"unbatched-change" for entry in changes if _MASS.search(entry.text) and not _BATCHED.search(entry.text)}
    broken |= {"rewrites-or-locks-the-table" for entry in changes if _REWRITES.search(entry.text)}
    broken |= {"validated-under-a-strong-lock" for entry in changes if "VALIDATE CONSTRAINT" in entry.text.upper() and not entry.alone}
    broken |= _long_waits(said)
    return {rule for rule in broken if not (removes and rule.startswith(_REMOVAL))}


def _long_waits(said: list[Said]) -> set[str]:
    timeout_ms, broken = online.LOCK_TIMEOUT_MS, set()
    for entry in said:
        if match := re.match(r"SET lock_timeout = (\d+)", entry.text):
            timeout_ms = int(match[1])
        elif _STRONG.match(entry.text) and not 0 < timeout_ms <= 200:
            broken.add("strong-lock-with-a-long-wait")
    return broken


@pytest.fixture
def scratch(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty database of its own."""
    for command in ("DROP DATABASE IF EXISTS scratch", "CREATE DATABASE scratch"):
        servers.postgres.run("psql", "-Xqc", command)
    monkeypatch.setenv("DATABASE_URL", re.sub(r"/plumbline$", "/scratch", servers.postgres.url))
    yield
    servers.postgres.run("psql", "-Xqc", "DROP DATABASE scratch WITH (FORCE)")


def test_every_revision_lets_the_writers_go_on_both_ways(scratch: None, tmp_path: Path) -> None:
    revisions = [script.revision for script in reversed(list(ScriptDirectory.from_config(config()).walk_revisions()))]
    assert revisions[:4] == ["0001", "0002", "0003", "0004"]
    for revision in revisions:
        with recording() as said:
            upgrade(revision)
        assert len(said) > 3
        # What only older code needed may go in the revisions that wait until that code is gone.
        assert complaints(said, tmp_path, removes=revision > REQUIRED_REVISION or revision in _WAITED) == set(), revision
    for revision in reversed(revisions[:-1]):
        with recording() as said:
            downgrade(revision)
        assert complaints(said, tmp_path, removes=True) == set(), f"down to {revision}"


UNSAFE = {
    "an index made under the writers": ("CREATE INDEX planted ON orders (total_minor)", "require-concurrent-index-creation"),
    "an index dropped under the readers": ("DROP INDEX ix_orders_open", "require-concurrent-index-deletion"),
    "concurrently, inside a transaction": ("CREATE INDEX CONCURRENTLY planted ON orders (total_minor)", "concurrently-in-transaction"),
    "a column that must have a value": ("ALTER TABLE orders ADD COLUMN planted int NOT NULL", "adding-required-field"),
    "a default that differs by row": ("ALTER TABLE orders ADD COLUMN planted uuid DEFAULT gen_random_uuid()", "adding-field-with-default"),
    "a stored computed column": ("ALTER TABLE orders ADD COLUMN x text GENERATED ALWAYS AS (lower(note)) STORED", "rewrites-or-locks-the-table"),
    "another type": ("ALTER TABLE orders ALTER COLUMN version TYPE bigint", "changing-column-type"),
    "not null, checked under the strongest lock": ("ALTER TABLE orders ALTER COLUMN note SET NOT NULL", "adding-not-nullable-field"),
    "a check that reads all rows at once": ("ALTER TABLE orders ADD CONSTRAINT planted CHECK (version > 0)", "constraint-missing-not-valid"),
    "a foreign key that reads all rows at once": (
        "ALTER TABLE payment ADD CONSTRAINT planted FOREIGN KEY (order_id) REFERENCES orders (id)", "adding-foreign-key-constraint",
    ),
    "a unique constraint with its index": ("ALTER TABLE orders ADD CONSTRAINT planted UNIQUE (id, version)", "disallowed-unique-constraint"),
    "validated where it was added": ("ALTER TABLE orders VALIDATE CONSTRAINT ck_orders_closed_when_ended", "validated-under-a-strong-lock"),
    "a column the running code reads": ("ALTER TABLE orders DROP COLUMN note", "ban-drop-column"),
    "a column under another name": ("ALTER TABLE orders RENAME COLUMN note TO remark", "renaming-column"),
    "all rows in one transaction": ("UPDATE orders SET note = NULL", "unbatched-change"),
    "a table rewritten": ("VACUUM FULL orders", "rewrites-or-locks-the-table"),
    "a lock on purpose": ("LOCK TABLE orders", "rewrites-or-locks-the-table"),
    "a long wait for a strong lock": ("SET lock_timeout = 5000; ALTER TABLE orders ADD COLUMN planted int", "strong-lock-with-a-long-wait"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE)
def test_what_would_stop_the_writers_is_refused(name: str, servers: Servers, tmp_path: Path) -> None:
    """Said to the real server in a transaction that is rolled back, so that the recording is part of what is tested."""
    planted, rule = UNSAFE[name]

    async def say() -> list[Said]:
        engine = make_engine()
        with recording() as said:
            async with engine.connect() as connection:
                for statement in planted.split("; "):
                    with contextlib.suppress(DBAPIError):  # some of these PostgreSQL refuses itself inside a transaction
                        await connection.execute(text(statement))
                await connection.rollback()
        return said

    assert rule in complaints(asyncio.run(say()), tmp_path)
