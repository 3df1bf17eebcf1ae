"""One statement against seven: what placing an order costs when the client asks step by step."""

from __future__ import annotations

import asyncio
from typing import Final

from bench.database.findings import Bars, Chapter, Finding, Shown, Table, ratio
from bench.database.lab import Lab, explain, wal_bytes
from bench.floor_sql import pgbench_script

_SKUS: Final = ("SKU-0101", "SKU-0202")
_SEVEN: Final = """
BEGIN;
INSERT INTO idempotency_key (principal, key, fingerprint, status, headers, body, expires_at)
    VALUES ('pgbench', uuidv7()::text, sha256('pgbench'), 201, '{}', convert_to(repeat('x', 420), 'UTF8'), now() + interval '72 hours')
    ON CONFLICT (principal, key) DO NOTHING;
SELECT sku, price_minor, currency, active FROM product WHERE sku = ANY ('{SKU-0101,SKU-0202}');
INSERT INTO orders (id, customer_id, status, version, currency, total_minor)
    VALUES (uuidv7(), 'pgbench', 'placed', 1, 'EUR', 5550) RETURNING id \\gset
INSERT INTO order_line (order_id, line_no, sku, quantity, unit_price_minor)
    VALUES (:id::uuid, 1, 'SKU-0101', 1, 1510), (:id::uuid, 2, 'SKU-0202', 2, 2520);
INSERT INTO outbox (event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers)
    VALUES (uuidv7(), 'order', :id::text, 1, 'order.placed', 'orders.events.v1', :id::text, convert_to(repeat('x', 302), 'UTF8'), '{}');
COMMIT;
"""
_COUNT: Final = 320


async def run(lab: Lab) -> Finding:
    """Both ways by pgbench, one client and sixteen."""
    found = Finding()
    async with lab.copy("trips") as name, lab.connect(name) as connection:
        prices = [await connection.fetchval("SELECT price_minor FROM product WHERE sku = $1", sku) for sku in _SKUS]
        one = pgbench_script(list(_SKUS), [1, 2], prices)

        async def place(script: str, clients: int) -> float:
            options = ("-M", "prepared", "-t", str(_COUNT // clients))
            await asyncio.to_thread(lab.pgbench, name, script, clients=clients, options=options)
            return lab.last_cpu_s

        for script in (one, _SEVEN):
            await place(script, 1)  # the first change of a page after a checkpoint is logged with the whole page
        written = [await wal_bytes(connection, lambda script=script: place(script, 1)) // _COUNT for script in (one, _SEVEN)]

        async def from_afar(script: str) -> float:
            far = "\n".join(f"{line}\n\\sleep 1 ms" if line.rstrip().endswith((";", "\\gset")) else line for line in script.splitlines())
            return 1 / await asyncio.to_thread(lab.pgbench, name, far, clients=1, options=("-M", "prepared", "-t", "60"))

        afar = await lab.interleave({"one": lambda: from_afar(one), "seven": lambda: from_afar(_SEVEN)}, rounds=5)
        arms = {f"{words}, {clients} at once": (script, clients) for clients in (1, 16) for words, script in (("one", one), ("seven", _SEVEN))}
        taken = await lab.interleave({key: (lambda arm=arm: place(*arm)) for key, arm in arms.items()}, rounds=5)
        found.shown = [
            Shown("one statement, as the floor of the benchmark has it", one, await explain(connection, one.strip().rstrip(";"))),
            Shown("seven round trips", _SEVEN),
        ]
    found.witness = [
        Table(("way", "round trips", "commits", "log written, bytes"), [("one statement", 1, 1, written[0]), ("seven", 7, 1, written[1])])
    ]
    ratios = [
        ratio(f"processor time of an order, client and server, seven ÷ one, {c} at once", taken[f"seven, {c} at once"], taken[f"one, {c} at once"])
        for c in (1, 16)
    ]
    ratios.append(ratio("time of an order, each answer 1 ms away, seven ÷ one", afar["seven"], afar["one"]))
    found.ratios = ratios
    words = ("processor time, 1 at once", "processor time, 16 at once", "time, each answer 1 ms away")
    found.bars = [Bars("Seven round trips, one statement = 1", "×", [(word, r.median) for word, r in zip(words, ratios, strict=True)])]
    return found


CHAPTER: Final = Chapter(
    name="round_trips",
    title="One statement against seven",
    question="What does it cost to place an order step by step?",
    reading=(
        "Both do the same work in one transaction and write about the same log. The seven wait for the client six times in between, and hold "
        "what they have locked while they wait: the key, so that twins queue for longer. Here the client is on the same machine, where a round "
        "trip costs least and mostly costs processors; the last ratio puts a millisecond between an answer and the next question. "
        "The service's own statement is `service/orders/place_order.sql`, its page [ADR 0005](adr/0005-one-statement-create.md)."
    ),
    other=(
        "Steps, where something outside the database decides in between, or where the steps differ from case to case: cancel, ship and "
        "restock here are transactions of several statements (`service/orders/operations.py`). A long statement is harder to change."
    ),
    run=run,
)
