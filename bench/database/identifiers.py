"""uuid4 against uuid7 as a primary key: where new rows land, and what that writes."""

from __future__ import annotations

import re
from typing import Final

from bench.cpu import cpu_ns
from bench.database.findings import Bars, Chapter, Finding, Shown, Table, ratio
from bench.database.lab import Lab, explain
from service.foundation.db import Connection

_KINDS: Final = {"uuid4": "gen_random_uuid()", "uuid7": "uuidv7()"}
_ROWS, _MORE, _ROUNDS = 100_000, 1_000, 5
_TABLE: Final = """
CREATE TABLE {name} (id uuid PRIMARY KEY, customer_id text, total_minor bigint);
INSERT INTO {name} SELECT {call}, 'customer-' || n % 5000, n FROM generate_series(1, {rows}) n;
"""
_INSERT: Final = "INSERT INTO {name} SELECT {call}, 'customer-' || n % 5000, n FROM generate_series(1, {more}) n"
_WAL: Final = re.compile(r"WAL: records=(\d+)(?: fpi=(\d+))?(?: fpi bytes=\d+)? bytes=(\d+)")


async def run(lab: Lab) -> Finding:
    """Fill both, then more rows after a checkpoint: whole pages logged, bytes, index size."""
    found, rows = Finding(), []
    taken: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    async with lab.copy("ids") as name, lab.connect(name) as connection:
        for kind, call in _KINDS.items():
            await connection.execute(_TABLE.format(name=f"by_{kind}", call=call, rows=_ROWS))
        for _ in range(_ROUNDS):
            for kind, call in _KINDS.items():
                await _settle(connection)
                begin = cpu_ns([connection.get_server_pid()])
                await connection.execute(_INSERT.format(name=f"by_{kind}", call=call, more=_MORE))
                taken[kind].append((cpu_ns([connection.get_server_pid()]) - begin) / 1e9)
        for kind, call in _KINDS.items():
            await _settle(connection)
            sql = _INSERT.format(name=f"by_{kind}", call=call, more=_MORE)
            plan = await explain(connection, sql, wal=True)
            wal = _WAL.search(plan)
            assert wal is not None, plan
            size = await connection.fetchval("SELECT pg_relation_size($1::regclass)", f"by_{kind}_pkey")
            total = _ROWS + (_ROUNDS + 1) * _MORE
            rows.append((kind, int(wal[2] or 0), int(wal[3]) // _MORE, round(size / total, 1)))
            found.shown.append(Shown(f"{_MORE:,} rows by {kind}", sql, plan))
    found.witness = [Table(("key", f"whole pages logged for {_MORE:,} rows", "log bytes a row", "index bytes a row"), rows)]
    found.ratios = [ratio(f"processor time of {_MORE:,} rows after a checkpoint, uuid4 ÷ uuid7", taken["uuid4"], taken["uuid7"])]
    found.bars = [Bars(f"Log bytes a row, {_MORE:,} rows after a checkpoint", "bytes", [(row[0], float(row[2])) for row in rows])]
    return found


async def _settle(connection: Connection) -> None:
    """After a checkpoint the first change of a page is logged with the whole page."""
    await connection.execute("CHECKPOINT")


CHAPTER: Final = Chapter(
    name="identifiers",
    title="uuid4 against uuid7",
    question="Why does it matter that keys rise with time?",
    reading=(
        "Random keys land on a random leaf of the index. After each checkpoint the first change of a page is logged with the whole page, so "
        "nearly every insert logs 8 kB that were not changed. Keys that rise with time fill the right edge: a few pages, "
        "and full ones, where random splits leave them about two thirds full. The same holds for every index that has the key in front: "
        "lines, payments, the inbox. Ids are made in `service/outbox.py::new_id`; pages of a list are read backwards on them without another index."
    ),
    other=(
        "uuid4, where an id must not tell when it was made. A bigint, where ids never leave the database: half the bytes. And where many "
        "writers meet on one right edge (hundreds of connections), a prefix that spreads them."
    ),
    run=run,
)
