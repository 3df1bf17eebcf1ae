"""Ten minutes of orders with retention shortened to a minute: what the reaper and autovacuum leave of what was thrown away.

Writers are paced; the relay's and the groups' part is done by the service's own statements; the reaper is the service's.
Afterwards the two ways to throw a day away, side by side: DROP of its partition, and DELETE.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from bench.database.findings import Chapter, Finding, Lines, Shown, Table, ratio
from bench.database.lab import Lab, wal_bytes
from bench.floor_sql import pgbench_script
from service.foundation.db import Connection, Database
from service.foundation.lifecycle import Lifecycle
from service.settings import Settings, load_settings
from workers.reaper import _OLD_INBOX, _OLD_KEYS, Reaper
from workers.relay import _KEPT, _MOVE, _READ

_SECONDS, _RATE, _KEPT_S, _SAMPLE_S = 600, 60, 60, 10
_TABLES: Final = ("idempotency_key", "inbox", "outbox", "orders", "stock")
_SKUS: Final = ("SKU-0101", "SKU-0202")
_DAY: Final = 50_000
_APPLY: Final = """
INSERT INTO inbox (consumer, event_id) SELECT c, (e ->> 'event_id')::uuid
FROM unnest($1::jsonb[]) e, unnest('{inventory,payments,notifications}'::text[]) c
"""
_STEP: Final = """
UPDATE orders SET status = $2, version = version + 1, updated_at = now(),
    closed_at = CASE WHEN $2 <> 'reserved' THEN coalesce(closed_at, now()) END
WHERE id = ANY ($1::uuid[])
"""
_DRAW: Final = "UPDATE stock SET available = available - 1 WHERE sku = ANY ('{SKU-0101,SKU-0202}')"
_LOOK: Final = """
SELECT relname, n_live_tup, n_dead_tup, pg_total_relation_size(relid), autovacuum_count FROM pg_stat_user_tables WHERE relname = ANY ($1::text[])
"""


async def run(lab: Lab) -> Finding:
    """Ten minutes, a line of figures every ten seconds; then the two ways to drop a day."""
    found = Finding()
    await _autovacuum(lab, on=True)
    try:
        async with lab.copy("kept") as name:
            samples = await _live(lab, name)
            found.lines, found.witness, found.facts = _tell(samples)
        await _autovacuum(lab, on=False)
        async with lab.copy("days") as name:
            table, taken = await _drop_against_delete(lab, name)
            found.witness.append(table)
            found.ratios = [ratio("time to throw a day away, DELETE ÷ DROP of its partition", taken["delete"], taken["drop"])]
    finally:
        await _autovacuum(lab, on=False)
    found.shown = [
        Shown("keys past their time", _OLD_KEYS),
        Shown("inbox rows past their time", _OLD_INBOX),
        Shown("settings", await _options(lab)),
    ]
    return found


async def _autovacuum(lab: Lab, *, on: bool) -> None:
    for change in (
        f"ALTER SYSTEM SET autovacuum = {'on' if on else 'off'}",
        "ALTER SYSTEM SET autovacuum_naptime = '10s'",
        "SELECT pg_reload_conf()",
    ):
        await asyncio.to_thread(lab.postgres.run, "psql", "-XAtqc", change)


async def _options(lab: Lab) -> str:
    async with lab.connect() as connection:
        rows = await connection.fetch("SELECT relname, reloptions FROM pg_class WHERE reloptions IS NOT NULL AND relkind = 'r' ORDER BY 1")
    return "\n".join(f"ALTER TABLE {row[0]} SET ({', '.join(row[1])});" for row in rows if "autovacuum" in str(row[1]) or row[0] in _TABLES)


def _settings(lab: Lab, name: str) -> Settings:
    """The service's, with a minute where production has days."""
    made = load_settings()
    worker = made.worker.model_copy(update={"inbox_retention_d": _KEPT_S / 86_400})
    database = made.db.model_copy(update={"pool_size": 2, "url": type(made.db.url)(lab.url(name))})
    return made.model_copy(update={"worker": worker, "db": database})


async def _live(lab: Lab, name: str) -> list[tuple[float, list[Any]]]:
    settings = _settings(lab, name)
    db = Database(settings.db, application="bench")
    await db.open()
    lifecycle, done = Lifecycle(), asyncio.Event()
    reaper = Reaper(settings, db, lifecycle)
    samples: list[tuple[float, list[Any]]] = []
    async with lab.connect(name, application_name="groups") as worker, lab.connect(name) as watcher:
        await worker.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=str)
        # What the seed left would take the first minutes: the run starts in its own state.
        await watcher.execute("TRUNCATE idempotency_key, inbox, outbox")
        await watcher.execute("VACUUM ANALYZE")
        prices = [await watcher.fetchval("SELECT price_minor FROM product WHERE sku = $1", sku) for sku in _SKUS]
        script = pgbench_script(list(_SKUS), [1, 2], prices).replace("72 hours", f"{_KEPT_S} seconds")
        loops = [asyncio.create_task(_follow(worker, done)), asyncio.create_task(reaper.run())]
        loops.append(asyncio.create_task(_watch(watcher, samples, done, lab.say)))
        options = ("-M", "prepared", "-T", str(_SECONDS), "-R", str(_RATE))
        await asyncio.to_thread(lab.pgbench, name, script, clients=4, options=options)
        done.set()
        lifecycle.stopping.set()
        await asyncio.gather(*loops)
    await db.close()
    return samples


async def _follow(connection: Connection, done: asyncio.Event) -> None:
    """Relay and groups: move what waits to outbox_sent, note it in three inboxes, take the orders on."""
    waiting: dict[str, list[str]] = {"reserved": [], "paid": [], "shipped": []}
    while not done.is_set():
        rows = await connection.fetch(_READ, 0, [], 500)
        for status, order_ids in waiting.items():
            await connection.execute(_STEP, order_ids, status)
        waiting = {"reserved": [row["aggregate_id"] for row in rows], "paid": waiting["reserved"], "shipped": waiting["paid"]}
        for _ in rows:
            await connection.execute(_DRAW)
        await connection.execute(_APPLY, [f'{{"event_id": "{row["event_id"]}"}}' for row in rows])
        await connection.execute(_MOVE, [row["seq"] for row in rows], _KEPT)
        await asyncio.sleep(0.3)


async def _watch(connection: Connection, samples: list[tuple[float, list[Any]]], done: asyncio.Event, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    while not done.is_set():
        at = time.monotonic() - began
        rows = [tuple(row) for row in await connection.fetch(_LOOK, list(_TABLES))]
        samples.append((round(at), rows))
        if len(samples) % 6 == 1:
            say(f"minute {at / 60:.0f} of {_SECONDS / 60:.0f}: " + ", ".join(f"{row[0]} {row[1]} live {row[2]} dead" for row in rows))
        await asyncio.sleep(_SAMPLE_S)


def _tell(samples: list[tuple[float, list[Any]]]) -> tuple[list[Lines], list[Table], dict[str, Any]]:
    sizes: dict[str, list[tuple[float, float]]] = defaultdict(list)
    dead: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for at, rows in samples:
        for name, _, gone, size, _ in rows:
            sizes[name].append((at, size / 1024))
            dead[name].append((at, float(gone)))
    last, third = {row[0]: row for row in samples[-1][1]}, {row[0]: row for row in samples[len(samples) // 3][1]}
    rows = [
        (f"`{name}`", last[name][1], max(int(value) for _, value in dead[name]), third[name][3] // 1024, last[name][3] // 1024, last[name][4])
        for name in _TABLES
    ]
    shrinking = ("idempotency_key", "inbox", "outbox", "stock")
    lines = [Lines("Size with indexes: flat once a minute's worth is kept", "seconds", "kB", [(name, sizes[name]) for name in shrinking], log_y=True)]
    table = Table(("table", "rows kept", "dead rows, at most", "kB after a third of the time", "kB at the end", "autovacuum runs"), rows)
    return lines, [table], {"seconds": _SECONDS, "rate": _RATE, "kept": _KEPT_S}


async def _drop_against_delete(lab: Lab, name: str) -> tuple[Table, dict[str, list[float]]]:
    """A day of sent events, thrown away both ways."""
    fill = """
        INSERT INTO {table} (seq, event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers, sent_at)
        SELECT n, gen_random_uuid(), 'order', gen_random_uuid()::text, 1, 'order.placed', 'orders.events.v1', 'k', convert_to(repeat('x', 300), 'UTF8'),
            '{{}}', timestamptz '2020-01-01 12:00' FROM generate_series(1, {rows}) n
    """
    written: dict[str, list[int]] = {"drop": [], "delete": []}
    async with lab.connect(name) as connection:
        day = "CREATE TABLE sent_day PARTITION OF outbox_sent FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')"
        statements = {"drop": "DROP TABLE sent_day", "delete": "DELETE FROM outbox_sent WHERE sent_at < '2020-01-02'"}

        async def throw(way: str) -> float:
            await connection.execute(day)
            await connection.execute(fill.format(table="outbox_sent", rows=_DAY))
            began = time.perf_counter()
            written[way].append(await wal_bytes(connection, lambda: connection.execute(statements[way])))
            took = time.perf_counter() - began
            if way == "delete":
                await connection.execute("DROP TABLE sent_day")
            return took

        taken = await lab.interleave({way: partial(throw, way) for way in statements}, rounds=4)
    rows = [("DROP of the partition", 1, 0, written["drop"][-1]), ("DELETE by time", 1, _DAY, written["delete"][-1])]
    return Table((f"a day of {_DAY:,} sent events", "statements", "dead rows left for vacuum", "log written, bytes"), rows), taken


CHAPTER: Final = Chapter(
    name="retention",
    title="Throwing away",
    question="What stays behind of rows that are deleted all day?",
    reading=(
        "{seconds} seconds at {rate} orders a second, keys and inbox rows kept for {kept} s instead of days, the reaper at work beside the writers, `autovacuum_naptime` 10 s. "
        "Space of deleted rows is used again once vacuum has seen them; so sizes stop growing when about a minute's worth is kept, if vacuum comes at a "
        "number of rows that does not grow with the table. That is why these tables have settings of their own (`service/models.py`): `outbox` is usually "
        "empty, and after an outage 20 % of it would be many; `inbox` and `idempotency_key` are large and lose the same small share each minute, so at the default of 20 % they "
        "would be vacuumed once in days, for hours. `stock` and `orders` have room on their pages (fillfactor) for HOT instead. "
        "`outbox_sent` is thrown away by the day, as a partition ([ADR 0302](adr/0302-partitioning.md))."
    ),
    other=(
        "Partitions for keys and inbox too, if their uniqueness were only needed within a day. `pg_repack`, once something has gone wrong and a table "
        "is mostly air: vacuum gives space back to the table, not to the disk."
    ),
    run=run,
)
