"""Connections at once against orders a second: where more connections stop helping, and what each of them weighs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from bench.cpu import backends
from bench.database.findings import Chapter, Finding, Lines, Shown, Table, ratio
from bench.database.lab import Lab
from bench.floor_sql import pgbench_script

_ORDERS: Final = 128
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
_SKUS: Final = ("SKU-0101", "SKU-0202")


async def run(lab: Lab) -> Finding:
    """Orders a second at each size, in rounds; memory of the backends once."""
    found = Finding()
    async with lab.copy("pool") as name, lab.connect(name) as connection:
        prices = [await connection.fetchval("SELECT price_minor FROM product WHERE sku = $1", sku) for sku in _SKUS]
        script = pgbench_script(list(_SKUS), [1, 2], prices)

        async def place(size: int) -> float:
            return 1 / await asyncio.to_thread(lab.pgbench, name, script, clients=size, options=("-M", "prepared", "-t", str(_ORDERS // size)))

        taken = await lab.interleave({str(size): (lambda size=size: place(size)) for size in _SIZES}, rounds=3)
        async with lab.crowd(name, 32) as crowd:
            await asyncio.gather(*(each.fetch("SELECT count(*) FROM product") for each in crowd))
            own = [kb for pid in backends(lab.postgres.running().pid) if (kb := _private_kb(pid)) > 1000]
    ratios = {size: ratio(f"orders a second, {size} connections ÷ 1", taken["1"], taken[str(size)]) for size in _SIZES[1:]}
    rows = [(size, ratios[size].median if size > 1 else 1.0, round(size / (ratios[size].median if size > 1 else 1.0), 2)) for size in _SIZES]
    best = max(_SIZES[1:], key=lambda size: ratios[size].median)
    found.witness = [
        Table(("connections at once", "orders a second, one connection = 1", "time of one order, one connection = 1"), rows),
        Table(("memory of its own, one backend (median)", "kB"), [("after one small statement", sorted(own)[len(own) // 2])]),
    ]
    found.ratios = list(ratios.values())
    found.lines = [
        Lines(
            "Orders a second and the time of one, one connection = 1", "connections at once", "×",
            [("orders a second", [(float(r[0]), float(r[1])) for r in rows]), ("time of one order", [(float(r[0]), float(r[2])) for r in rows])],
            log_x=True, log_y=True,
        )
    ]  # fmt: skip
    found.shown = [Shown("what each connection runs", script)]
    found.facts = {"best": best}
    return found


def _private_kb(pid: int) -> int:
    """What only this process holds."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


CHAPTER: Final = Chapter(
    name="pool",
    title="Pool size against throughput",
    question="How many connections does a process need, and why not a hundred?",
    reading=(
        "Two cores and one disk are busy with a few statements; commits that wait for the disk are worth a few more, since one flush serves all "
        "who wait. Most was done here with {best} connections; beyond that each order only waits in PostgreSQL instead of in the client, where it could "
        "be shed. So a process has 10, a request waits 250 ms for one and is answered 503 then "
        "([ADR 0020](adr/0020-a-pool-of-our-own.md)); processes × pool is checked against the budget at start-up ([consistency.md](consistency.md))."
    ),
    other=(
        "A large pool, where transactions wait for something else than the database: they should not, but sometimes must. A pooler, where many "
        "processes each need few connections: see the next section but one."
    ),
    run=run,
)
