"""The tables of service/models.py are those the migrations make: columns, defaults, constraints, indexes, comments, options.

Both are asked of PostgreSQL itself: what the migrations made, against what `metadata.create_all` makes beside it.
A difference means that a migration is missing, or that the page no longer tells what is there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.foundation.db import Database
from service.migrations import make_engine
from service.models import metadata
from tests.integration.facts import Facts

MODELS = "of_models"
# Partitions come and go with the reaper; the version table is Alembic's own.
_FACTS = """
WITH t AS (
    SELECT oid, relname FROM pg_class
     WHERE relnamespace = $1::text::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'alembic_version'
)
SELECT relname || '.' || attname, concat_ws(' ', format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'NOT NULL' END,
       'default ' || pg_get_expr(adbin, adrelid), 'identity ' || NULLIF(attidentity::text, ''))
  FROM t JOIN pg_attribute a ON attrelid = t.oid LEFT JOIN pg_attrdef ON adrelid = t.oid AND adnum = attnum WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT relname || ' constraint ' || conname, pg_get_constraintdef(k.oid) FROM t JOIN pg_constraint k ON conrelid = t.oid WHERE contype <> 'n'
UNION ALL
SELECT relname || ' index ' || indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM t JOIN pg_index ON indrelid = t.oid
UNION ALL
SELECT t.relname, concat_ws(' ', obj_description(t.oid, 'pg_class'), c.reloptions::text, pg_get_partkeydef(t.oid))
  FROM t JOIN pg_class c USING (oid)
"""


@pytest.fixture
async def both(db: Database, facts: Facts) -> AsyncIterator[Facts]:
    """The models' tables in a schema of their own, beside the migrated ones."""
    await facts.run(f"DROP SCHEMA IF EXISTS {MODELS} CASCADE")
    await facts.run(f"CREATE SCHEMA {MODELS}")
    engine = make_engine(search_path=MODELS)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
    yield facts
    await facts.run(f"DROP SCHEMA {MODELS} CASCADE")


async def told(facts: Facts, schema: str) -> dict[str, str]:
    rows = await facts.rows(_FACTS, schema)
    return {str(row[0]).replace(f"{schema}.", ""): str(row[1]).replace(f"{schema}.", "") for row in rows}


async def drift(facts: Facts) -> dict[str, tuple[Any, Any]]:
    """What differs: name → (as migrated, as the models say)."""
    migrated, models = await told(facts, "public"), await told(facts, MODELS)
    assert len(migrated) > 100
    return {name: (migrated.get(name), models.get(name)) for name in migrated | models if migrated.get(name) != models.get(name)}


async def test_the_models_say_what_the_migrations_made(both: Facts) -> None:
    assert await drift(both) == {}


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE {0}.orders ADD COLUMN coupon text", "ALTER TABLE {0}.orders ALTER COLUMN note TYPE varchar(500)",
        "ALTER TABLE {0}.orders ALTER COLUMN total_minor DROP NOT NULL", "ALTER TABLE {0}.product ALTER COLUMN version SET DEFAULT 2",
        "DROP INDEX {0}.ix_orders_open", "ALTER TABLE {0}.orders DROP CONSTRAINT ck_orders_status_known",
        "ALTER TABLE {0}.order_line DROP CONSTRAINT fk_order_line_order_id", "COMMENT ON TABLE {0}.stock IS 'else'",
        "ALTER TABLE {0}.outbox RESET (autovacuum_vacuum_threshold)", "CREATE TABLE {0}.forgotten ()",
    ],
)  # fmt: skip
async def test_a_change_without_its_migration_is_seen(both: Facts, change: str) -> None:
    await both.run(change.format(MODELS))
    assert await drift(both) != {}
