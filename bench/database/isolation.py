"""Eight buyers, one piece: what each isolation level makes of a race that is forced, and what the retries cost in one that is not.

Every buyer has read before any of them writes: a barrier stands between. So the counts are the same in every run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import asyncpg

from bench.database.findings import Bars, Chapter, Finding, Shown, Table, ratio
from bench.database.lab import Lab, explain
from service.foundation.db import Connection

_BUYERS: Final = 8
_PIECES: Final = 24
_READ: Final = "SELECT available FROM stock WHERE sku = 'SKU-0002'"
_WRITE: Final = "UPDATE stock SET available = $1 WHERE sku = 'SKU-0002'"
_TAKE: Final = "UPDATE stock SET available = available - 1 WHERE sku = 'SKU-0002' AND available >= 1"
_LEFT: Final = "SELECT $1 - coalesce(sum(quantity), 0)::bigint FROM stock_ledger WHERE sku = 'SKU-0002' AND kind = 'reserve' AND ref_id >= $2"
_NOTE: Final = "INSERT INTO stock_ledger (ref_id, sku, kind, quantity) VALUES (gen_random_uuid(), 'SKU-0002', 'reserve', 1)"
_SUM: Final = "SELECT coalesce(sum(quantity), 0)::bigint FROM stock_ledger WHERE sku = 'SKU-0002' AND kind = 'reserve'"
Level = Literal["read_committed", "repeatable_read", "serializable"]
Buy = Callable[[Connection, int, Callable[[], Awaitable[object]]], Awaitable[bool]]


async def _read_then_write(connection: Connection, _: int, between: Callable[[], Awaitable[object]]) -> bool:
    left = await connection.fetchval(_READ)
    await between()
    if left < 1:
        return False
    await connection.execute(_WRITE, left - 1)
    await connection.execute(_NOTE)
    return True


async def _sum_then_insert(connection: Connection, pieces: int, between: Callable[[], Awaitable[object]]) -> bool:
    taken = await connection.fetchval(_SUM)
    await between()
    if taken >= pieces:
        return False
    await connection.execute(_NOTE)
    return True


async def _conditional(connection: Connection, _: int, between: Callable[[], Awaitable[object]]) -> bool:
    await between()
    if await connection.execute(_TAKE) == "UPDATE 0":
        return False
    await connection.execute(_NOTE)
    return True


_ARMS: Final[tuple[tuple[str, Buy, Level], ...]] = (
    ("read, then write: READ COMMITTED", _read_then_write, "read_committed"),
    ("read, then write: REPEATABLE READ", _read_then_write, "repeatable_read"),
    ("read, then write: SERIALIZABLE", _read_then_write, "serializable"),
    ("sum, then insert: READ COMMITTED", _sum_then_insert, "read_committed"),
    ("sum, then insert: REPEATABLE READ", _sum_then_insert, "repeatable_read"),
    ("sum, then insert: SERIALIZABLE", _sum_then_insert, "serializable"),
    ("conditional UPDATE: READ COMMITTED", _conditional, "read_committed"),
)


async def _reset(connection: Connection, pieces: int) -> None:
    await connection.execute("DELETE FROM stock_ledger WHERE sku = 'SKU-0002'")
    await connection.execute("UPDATE stock SET available = $1 WHERE sku = 'SKU-0002'", pieces)


async def _race(crowd: list[Connection], buy: Buy, level: Level) -> tuple[int, int, int]:
    """One piece, everybody reads first: (sold, refused with 40001, told sold out)."""
    await _reset(crowd[0], 1)
    barrier = asyncio.Barrier(_BUYERS)

    async def buyer(connection: Connection) -> str:
        try:
            async with connection.transaction(isolation=level):
                return "sold" if await buy(connection, 1, barrier.wait) else "out"
        except asyncpg.SerializationError:
            return "refused"

    said = await asyncio.gather(*(buyer(connection) for connection in crowd))
    return said.count("sold"), said.count("refused"), said.count("out")


async def _sell_all(crowd: list[Connection], buy: Buy, level: Level) -> int:
    """Everybody buys, and tries again when refused, until all pieces are gone; answers the retries."""
    await _reset(crowd[0], _PIECES)
    retries = 0

    async def nothing() -> None:
        return

    async def buyer(connection: Connection) -> None:
        nonlocal retries
        while True:
            try:
                async with connection.transaction(isolation=level):
                    if not await buy(connection, _PIECES, nothing):
                        return
            except asyncpg.SerializationError:
                retries += 1

    await asyncio.gather(*(buyer(connection) for connection in crowd))
    return retries


async def run(lab: Lab) -> Finding:
    """The forced race for the counts; a free one, with retries until all is sold, for time and retries."""
    found, rows = Finding(), []
    safe = [
        arm
        for arm in _ARMS
        if arm[0] in {"read, then write: REPEATABLE READ", "sum, then insert: SERIALIZABLE", "conditional UPDATE: READ COMMITTED"}
    ]
    retries = {name: 0 for name, *_ in safe}
    async with lab.copy("race") as name, lab.crowd(name, _BUYERS) as crowd:
        for title, buy, level in _ARMS:
            sold, refused, out = await _race(crowd, buy, level)
            rows.append((title, sold, "**oversold**" if sold > 1 else "right", refused, out))

        async def sell(title: str, buy: Buy, level: Level) -> None:
            retries[title] += await _sell_all(crowd, buy, level)

        taken = await lab.interleave({arm[0]: (lambda arm=arm: sell(*arm)) for arm in safe}, rounds=5)
        found.shown = [
            Shown("read, then write", f"{_READ};\n-- the client subtracts\n{_WRITE};", await explain(crowd[0], _READ)),
            Shown("sum, then insert", f"{_SUM};\n-- the client compares\n{_NOTE};", await explain(crowd[0], _SUM)),
            Shown("conditional UPDATE", _TAKE, await explain(crowd[0], _TAKE)),
        ]
    found.witness = [
        Table(("one piece, eight buyers who have all read", "sold", "", "refused with 40001", "told: sold out"), rows),
        Table((f"{_PIECES} pieces, tried again when refused", "refusals a sale"), [(n, round(c / _PIECES / 6, 2)) for n, c in retries.items()]),
    ]
    cheap = taken["conditional UPDATE: READ COMMITTED"]
    found.ratios = [ratio(f"time to sell {_PIECES}, {arm[0]} ÷ conditional", taken[arm[0]], cheap) for arm in safe[:2]]
    oversold = [row[0] for row in rows if int(row[1]) > 1]
    sold = [(row[0], float(row[1])) for row in rows]
    found.bars = [Bars("Sold of one piece, eight buyers", "sold", sold, other=oversold, other_is="sold more than there was")]
    return found


CHAPTER: Final = Chapter(
    name="isolation",
    title="Isolation levels on the oversell race",
    question="Eight buyers have all read that one piece is left. Which level sells it once?",
    reading=(
        "READ COMMITTED sells it eight times if the client computes the new value. REPEATABLE READ sees that the row was changed under it and "
        "refuses. But it does not help where the rule spans rows (a sum over the ledger): nobody changed what anybody read, so all eight insert. Only "
        "SERIALIZABLE refuses that. A condition inside the UPDATE is right at READ COMMITTED, refuses nobody, and tells the seven the truth: the "
        "waiter reads the row again after the lock. That is what the service does (`service/products/reserve_stock.sql`, under row locks in one order)."
    ),
    other=(
        "SERIALIZABLE, where rules span many rows and change often, all writers go through one retry loop, and conflicts are rare: then nobody "
        "has to think about locks. On one hot row it turns a short wait into refused work."
    ),
    run=run,
)
