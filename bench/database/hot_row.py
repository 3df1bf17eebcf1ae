"""One SKU that everybody buys: lock and change, change if it is still there, buckets, and batches."""

from __future__ import annotations

import asyncio
from typing import Final

from bench.database.findings import Bars, Chapter, Finding, Shown, Table, ratio
from bench.database.lab import Lab, explain

_CLIENTS: Final = 8
_BATCH: Final = 50
_SALES: Final = 200
_BUCKETS: Final = """
CREATE TABLE stock_bucket (sku text, bucket int, available bigint NOT NULL CHECK (available >= 0), PRIMARY KEY (sku, bucket)) WITH (fillfactor = 50);
INSERT INTO stock_bucket SELECT 'SKU-0003', n, 10000000 FROM generate_series(0, 7) n;
"""
_LEDGER: Final = "INSERT INTO stock_ledger (ref_id, sku, kind, quantity)"
_FOR_UPDATE: Final = f"""
BEGIN;
SELECT available FROM stock WHERE sku = 'SKU-0003' FOR UPDATE;
UPDATE stock SET available = available - 1 WHERE sku = 'SKU-0003';
{_LEDGER} VALUES (gen_random_uuid(), 'SKU-0003', 'reserve', 1);
COMMIT;
"""
_CONDITIONAL: Final = f"""
WITH drawn AS (UPDATE stock SET available = available - 1 WHERE sku = 'SKU-0003' AND available >= 1 RETURNING sku)
{_LEDGER} SELECT gen_random_uuid(), sku, 'reserve', 1 FROM drawn;
"""
_BUCKET: Final = f"""
\\set bucket random(0, 7)
WITH drawn AS (
    UPDATE stock_bucket SET available = available - 1 WHERE sku = 'SKU-0003' AND bucket = :bucket AND available >= 1 RETURNING sku
)
{_LEDGER} SELECT gen_random_uuid(), sku, 'reserve', 1 FROM drawn;
"""
_BATCHED: Final = f"""
WITH drawn AS (UPDATE stock SET available = available - {_BATCH} WHERE sku = 'SKU-0003' AND available >= {_BATCH} RETURNING sku)
{_LEDGER} SELECT gen_random_uuid(), sku, 'reserve', 1 FROM drawn, generate_series(1, {_BATCH});
"""
# name: script, clients, sales a transaction, statements a transaction, rows a reader of the stock sums
_ARMS: Final = {
    "FOR UPDATE, then change": (_FOR_UPDATE, _CLIENTS, 1, 5, 1),
    "conditional UPDATE": (_CONDITIONAL, _CLIENTS, 1, 1, 1),
    "eight buckets": (_BUCKET, _CLIENTS, 1, 1, 8),
    "one worker, 50 in a batch": (_BATCHED, 1, _BATCH, 1, 1),
}


async def run(lab: Lab) -> Finding:
    """Seconds a sale of each way, in rounds."""
    found = Finding()
    async with lab.copy("hot") as name, lab.connect(name) as connection:
        await connection.execute(_BUCKETS)

        async def sell(script: str, clients: int, sales: int) -> float:
            per_s = await asyncio.to_thread(
                lab.pgbench, name, script, clients=clients, options=("-M", "prepared", "-t", str(_SALES // clients // sales))
            )
            return 1 / (per_s * sales)

        taken = await lab.interleave({key: (lambda arm=arm: sell(*arm[:3])) for key, arm in _ARMS.items()}, rounds=4)
        plan = await explain(connection, _CONDITIONAL.strip().rstrip(";"))
    found.witness = [
        Table(
            ("way", "statements a sale", "commits a sale", "times the hot row is locked, a sale", "rows to sum for what is left"),
            [(key, statements / sales, 1 / sales, 1 / sales, rows) for key, (_, _, sales, statements, rows) in _ARMS.items()],
        )
    ]
    base = taken["conditional UPDATE"]
    found.ratios = [ratio(f"sales a second, {key} ÷ conditional", base, taken[key]) for key in _ARMS if key != "conditional UPDATE"]
    by_name = {r.name.split(", ", 1)[1].removesuffix(" ÷ conditional"): r.median for r in found.ratios} | {"conditional UPDATE": 1.0}
    found.bars = [Bars("Sales a second of one SKU, conditional UPDATE = 1", "×", [(key, by_name[key]) for key in _ARMS])]
    found.shown = [Shown(key, script, plan if key == "conditional UPDATE" else "") for key, (script, *_) in _ARMS.items()]
    return found


CHAPTER: Final = Chapter(
    name="hot_row",
    title="FOR UPDATE against conditional UPDATE against buckets on a hot row",
    question="Eight workers sell the same SKU. What is the ceiling, and what lifts it?",
    reading=(
        "The row is locked from the change to the end of the commit. With FOR UPDATE it is also locked while the client thinks, over four more round "
        "trips. Buckets let eight commits run side by side, and make the stock a sum: the last pieces lie scattered, so "
        "one bucket says sold out while another has some. A batch locks the row once for fifty sales and needs no buckets; the inventory group reads Kafka "
        "in batches anyway. So stock is one row a SKU ([ADR 0007](adr/0007-one-stock-row-and-lock-order.md))."
    ),
    other=(
        "FOR UPDATE, where what happens next depends on what was read and cannot be said in SQL; the service takes FOR NO KEY UPDATE on an order "
        "before it settles a payment. Buckets, where the writers cannot be batched: requests that sell directly, without a queue."
    ),
    run=run,
)
