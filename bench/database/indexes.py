"""Every index beyond the keys: the question it answers, what that costs without it, and what it costs on writes.

Questions are the service's own statements. "Without" is a DROP INDEX in a transaction that is rolled back. Writes go into
two tables with the same columns and rows, one with all indexes and one without this one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from bench.cpu import cpu_ns
from bench.database.findings import Bars, Chapter, Finding, Shown, Table, ratio
from bench.database.lab import Lab, buffers, explain, wal_bytes
from service.foundation.db import Connection
from service.models import orders as orders_table
from service.orders.operations import _list_statement
from workers.reaper import _CANDIDATES, _OLD_INBOX, _OLD_KEYS

_LIST: Final = _list_statement(by_customer=True, by_status=False, before=False)
_UNAPPLIED: Final = "SELECT version, type FROM outbox_sent WHERE aggregate_id = $1"
_OF_ORDER: Final = "SELECT * FROM payment WHERE order_id = $1"
_CHUNK, _ROUNDS = 1_000, 7
_STEPS: Final = ("reserved", "paid", "shipped")
_OLD_INDEX: Final = "CREATE INDEX ON {table} (updated_at) WHERE status IN ('placed', 'reserved')"
_NEW_INDEX: Final = "CREATE INDEX ON {table} (created_at) WHERE closed_at IS NULL"


@dataclass(frozen=True, slots=True)
class Question:
    """What an index is for. `pick` finds a value to ask with."""

    index: str
    table: str
    who: str
    sql: str
    values: tuple[Any, ...] = ()
    pick: str = ""


_QUESTIONS: Final = (
    Question(
        "ix_orders_customer_id_id", "orders", "a customer's list", _LIST.sql,
        pick="SELECT customer_id FROM orders GROUP BY 1 HAVING count(*) BETWEEN 20 AND 40 LIMIT 1",
    ),
    Question("ix_orders_open", "orders", "the reaper: overdue orders", _CANDIDATES, (timedelta(days=1), timedelta(minutes=15), 100)),
    Question("ix_payment_order_id", "payment", "settling up after a cancel", _OF_ORDER, pick="SELECT order_id FROM payment LIMIT 1"),
    Question("ix_idempotency_key_expires_at", "idempotency_key", "the reaper: old keys", _OLD_KEYS, (1_000,)),
    Question("ix_inbox_processed_at", "inbox", "the reaper: old inbox rows", _OLD_INBOX, (1_000, timedelta(days=45))),
    Question(
        "ix_outbox_sent_aggregate_id", "outbox_sent", "republish: the events of an order", _UNAPPLIED,
        pick="SELECT aggregate_id FROM outbox_sent ORDER BY seq DESC LIMIT 1",
    ),
)  # fmt: skip


async def run(lab: Lab) -> Finding:
    """Reads with and without, writes with and without, then HOT."""
    found = Finding()
    rows, shares = [], []
    async with lab.copy("indexed") as name, lab.connect(name) as connection:
        for question in _QUESTIONS:
            values = (await connection.fetchval(question.pick),) if question.pick else question.values
            asked = (values[0], 20) if question.index == "ix_orders_customer_id_id" else values
            if question.sql is _LIST.sql:
                asked = _LIST(customer_id=values[0], limit=20)[1:]
            plans = [await _explain_and_undo(connection, question, asked, drop=drop) for drop in (False, True)]
            size, count = await _size(connection, question)
            log, taken = await _write(lab, connection, question)
            rows.append((f"`{question.index}`", question.who, *map(buffers, plans), round(size / count, 1), log))
            shares.append(
                ratio(f"processor time of an insert into {question.table}, with ÷ without `{question.index}`", taken["with"], taken["without"])
            )
            found.shown += [
                Shown(f"{question.who}, with the index", question.sql, plans[0]),
                Shown(f"{question.who}, without it", question.sql, plans[1]),
            ]
        hot = [await _transitions(connection, index) for index in (_OLD_INDEX, _NEW_INDEX)]
    found.witness = [
        Table(("index", "who asks", "buffers with", "buffers without", "index bytes a row", "log bytes an insert, for it"), rows),
        Table(
            ("index of open orders", "updates", "HOT", "log bytes an order"),
            [("`(updated_at) WHERE status IN ('placed', 'reserved')`, before 0002", *hot[0]), ("`(created_at) WHERE closed_at IS NULL`", *hot[1])],
        ),
    ]
    found.ratios = shares
    pairs = [(f"{row[0].strip('`')}{words}", float(row[column])) for row in rows for column, words in ((2, ""), (3, " dropped"))]
    dropped = [name for name, _ in pairs if name.endswith(" dropped")]
    title = "Buffers read for the question each index answers, with it and without"
    found.bars = [Bars(title, "buffers", pairs, log=True, other=dropped, other_is="without the index")]
    found.facts = {"hot_before": hot[0][1], "hot_after": hot[1][1], "updates": hot[0][0], "log_before": hot[0][2], "log_after": hot[1][2]}
    return found


async def _explain_and_undo(connection: Connection, question: Question, values: tuple[Any, ...], *, drop: bool) -> str:
    transaction = connection.transaction()
    await transaction.start()
    try:
        if drop:
            await connection.execute(f"DROP INDEX {question.index}")
        return await explain(connection, question.sql, *values)
    finally:
        await transaction.rollback()


async def _size(connection: Connection, question: Question) -> tuple[int, int]:
    """Bytes of the index with its partitions', and rows of the table."""
    sql = "SELECT coalesce((SELECT sum(pg_relation_size(relid))::bigint FROM pg_partition_tree($1::regclass)), pg_relation_size($1::regclass))"
    size = await connection.fetchval(sql, question.index)
    return size, await connection.fetchval(f"SELECT count(*) FROM {question.table}")


async def _write(lab: Lab, connection: Connection, question: Question) -> tuple[int, dict[str, list[float]]]:
    """Half of the rows first; then a thousand at a time into both; (log bytes a row for this index, seconds)."""
    arms = {"with": f"{question.table}_with", "without": f"{question.table}_without"}
    count = await connection.fetchval(f"SELECT count(*) FROM {question.table}")
    chunk = min(_CHUNK, count // 2 // (_ROUNDS + 1))
    source = f"SELECT * FROM {question.table} ORDER BY {await _key(connection, question.table)}"
    for arm, table in arms.items():
        await _make_table(connection, question, table, every=arm == "with")
        await connection.execute(f"INSERT INTO {table} {source} LIMIT {count // 2}")
    # In memory first: the sorting of the source is not what is asked about.
    await connection.execute(f"CREATE TEMP TABLE more AS SELECT row_number() OVER () AS n, s.* FROM ({source} OFFSET {count // 2}) s")
    await connection.execute("CREATE INDEX ON more (n)")
    columns = ", ".join(await _columns(connection, question.table))
    done, logged = dict.fromkeys(arms, 0), dict.fromkeys(arms, 0)

    backend = connection.get_server_pid()

    async def insert(arm: str) -> float:
        begin = done[arm]
        done[arm] += chunk
        sql = f"INSERT INTO {arms[arm]} ({columns}) SELECT {columns} FROM more WHERE n > {begin} AND n <= {done[arm]}"
        before = cpu_ns([backend])
        logged[arm] += await wal_bytes(connection, partial(connection.execute, sql))
        return (cpu_ns([backend]) - before) / 1e9

    await connection.execute("CHECKPOINT")
    taken = await lab.interleave({arm: partial(insert, arm) for arm in arms}, rounds=_ROUNDS)
    await connection.execute(f"DROP TABLE more, {', '.join(arms.values())}")
    return (logged["with"] - logged["without"]) // done["with"], taken


async def _make_table(connection: Connection, question: Question, table: str, *, every: bool) -> None:
    await connection.execute(f"CREATE TABLE {table} (LIKE {question.table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    for name, text in await connection.fetch("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = $1", question.table):
        if every or name != question.index:
            await connection.execute(re.sub(r"INDEX \S+ ON (ONLY )?\S+ ", f"INDEX ON {table} ", text))


async def _key(connection: Connection, table: str) -> str:
    """Rows in the order in which life made them."""
    return "created_at" if "created_at" in await _columns(connection, table) else "processed_at"


async def _columns(connection: Connection, table: str) -> list[str]:
    sql = "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    return [row[0] for row in await connection.fetch(sql, table)]


async def _transitions(connection: Connection, index: str) -> tuple[int, int, int]:
    """2,000 orders placed → reserved → paid → shipped, each step a commit: (updates, HOT updates, log bytes an order)."""
    columns = ", ".join(column.name for column in orders_table.columns)
    await connection.execute("CREATE TABLE moving (LIKE orders INCLUDING DEFAULTS INCLUDING CONSTRAINTS) WITH (fillfactor = 85)")
    await connection.execute("CREATE UNIQUE INDEX ON moving (id); CREATE INDEX ON moving (customer_id, id DESC)")
    await connection.execute(index.format(table="moving"))
    placed = columns.replace(" status,", " 'placed',").replace("closed_at", "NULL")
    await connection.execute(f"INSERT INTO moving ({columns}) SELECT {placed} FROM orders ORDER BY id LIMIT 2000")
    ids = [row[0] for row in await connection.fetch("SELECT id FROM moving ORDER BY id")]

    async def walk() -> None:
        for start in range(40):
            for status in _STEPS:
                closed = "now()" if status == "paid" else "closed_at"
                sql = f"UPDATE moving SET status = $2, version = version + 1, updated_at = now(), closed_at = {closed} WHERE id = ANY ($1::uuid[])"
                await connection.execute(sql, ids[start::40], status)

    written = await wal_bytes(connection, walk)
    await connection.execute("SELECT pg_stat_force_next_flush()")
    counted = await connection.fetchrow("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'moving'")
    assert counted is not None
    await connection.execute("DROP TABLE moving")
    return counted[0], counted[1], written // len(ids)


CHAPTER: Final = Chapter(
    name="indexes",
    title="Each index and what it costs",
    question="Which question does each index answer, and what do writes pay for it?",
    reading=(
        "An index that nobody asks costs every write and serves nobody; each of these has one reader, named in the table. What a write pays is its "
        "entry in the log and on a page, most where entries land at random (a customer's list) and least at a right edge (times). The dearest "
        "cost hides in updates: a column in an index, also in its WHERE, forbids HOT when it changes, and then every index of the table gets a new entry. "
        "With the index that revision 0002 replaced {hot_before:,} of {updates:,} transitions were HOT, now {hot_after:,}; "
        "an order's three steps write {log_after:,} bytes of log instead of {log_before:,} ([ADR 0300](adr/0300-transitions-are-hot.md))."
    ),
    other=(
        "No index on `order_line.sku`, `orders.status`, `audit_log.actor`: nobody's request asks by them, and a report may read the table at night. "
        "BRIN on a time column, where a table is only appended to and asked for ranges: kilobytes instead of megabytes."
    ),
    run=run,
)
