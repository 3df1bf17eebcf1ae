"""`make bench-growth`: the same questions asked in a small shop and in a big one, side by side.

Two servers, seeded as `plumbline seed --orders` does. Every round asks both through the service's own statements, in shuffled
order; a ratio is the median over the rounds, and the buffers beside it are a witness that no other program disturbs.
Exit 0: every ratio is within its bound · 1: one is not · 2: it cannot run here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from bench.database.claims import _ALL, _EVER
from bench.database.findings import Ratio, ratio
from bench.database.lab import Lab, buffers, explain, open_lab
from bench.errors import BenchError
from bench.floor_sql import pgbench_script
from bench.progress import teller
from service.answers import KeyedRequest
from service.dev.children import StackError
from service.foundation.db import Connection
from service.orders.operations import _GET, _TIMELINE
from service.orders.placing import _PLACE, _arguments, draft_order
from service.orders.schemas import LineIn, PlaceOrder
from workers.reaper import _CANDIDATES, _OLD_KEYS
from workers.relay import _READ

_SMALL, _BIG, _ROUNDS, _ASKED = 10_000, 1_000_000, 9, 100
_BOUND, _DEEP, _PAGE = 1.5, 5_000, 20
_DEAD, _WAITING, _LOOKS = 1_000_000, 500, 10
_PAST, _PURGED = 2_000, 1_000
_SKUS: Final = ("SKU-0101", "SKU-0202")
_NEWEST: Final = UUID(int=(1 << 128) - 1)
_FILL: Final = """
INSERT INTO outbox (event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers)
SELECT uuidv7(), 'order', 'growth-' || n, 1, 'order.placed', 'orders.events.v1', 'growth-' || n, convert_to(repeat('x', 302), 'UTF8'), '{}'
FROM generate_series(1, $1::int) AS n
"""

# As many in both, although a small shop has not as many keys.
_OLD: Final = """
INSERT INTO idempotency_key (principal, key, fingerprint, status, headers, body, created_at, expires_at)
SELECT 'growth', gen_random_uuid()::text, repeat('f', 32)::bytea, 201, '{}', repeat('b', 400)::bytea,
    now() - interval '73 hours' - n * interval '1 second', now() - interval '1 hour' - n * interval '1 second'
FROM generate_series(1, $1::int) AS n
"""


@dataclass(frozen=True, slots=True)
class Shop:
    """One of the two: its session, orders to ask for, a cursor deep in its list, and where its outbox begins."""

    connection: Connection
    orders: Sequence[UUID]
    before: UUID
    prices: dict[str, dict[str, Any]]
    floor: int


@dataclass(frozen=True, slots=True)
class Found:
    """A row of the table."""

    question: str
    ratio: Ratio
    small: int
    big: int


async def look_at(lab: Lab, connection: Connection, *, dead: int) -> Shop:
    """Prepare a shop: 500 events wait behind `dead` ones that were published and not vacuumed yet, as many keys are past their time."""
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    await connection.execute("DELETE FROM outbox")
    if dead:
        lab.say(f"{dead:,} events published and not vacuumed")
        await connection.execute(_FILL, dead)
        await connection.execute("DELETE FROM outbox")
    await connection.execute(_FILL, _WAITING)
    await connection.execute(_OLD, _PAST)
    # Keys all live equally long: life lays them down in the order in which they end.
    await connection.execute("CLUSTER idempotency_key USING ix_idempotency_key_expires_at")
    await connection.execute("CHECKPOINT")
    orders = [row[0] for row in await connection.fetch("SELECT id FROM orders ORDER BY id")]
    rows = await connection.fetch("SELECT sku, price_minor, currency, active FROM product WHERE sku = ANY ($1)", list(_SKUS))
    deep = orders[-min(len(orders), (_DEEP - 1) * _PAGE)]
    floor = await connection.fetchval("SELECT min(seq) FROM outbox")
    return Shop(connection, random.Random(1).sample(orders, _ASKED), deep, {row["sku"]: dict(row) for row in rows}, floor)


# -- what is asked


async def pages(shop: Shop) -> None:
    """A page of everybody's orders, a hundred times."""
    for _ in range(_ASKED):
        await shop.connection.fetch(*_ALL(before=shop.before, limit=_PAGE))


async def creates(shop: Shop) -> None:
    """A hundred orders, taken back: what is compared is the work, not the disk's flush."""
    transaction = shop.connection.transaction()
    await transaction.start()
    request = PlaceOrder(lines=tuple(LineIn(sku=sku, quantity=1) for sku in _SKUS), currency="EUR")
    for _ in range(_ASKED):
        draft = draft_order(request, shop.prices, customer_id="growth", now=datetime.now(UTC))
        keyed = KeyedRequest("growth", str(uuid4()), b"growth")
        row = await shop.connection.fetchrow(_PLACE, *_arguments(draft, keyed, timedelta(hours=72)))
        if row is None or row["outcome"] != "created":
            raise BenchError(f"an order was not created: {row}")
    await transaction.rollback()


async def each(shop: Shop, statement: Callable[..., tuple[Any, ...]]) -> None:
    """A hundred orders, wherever they lie."""
    for order_id in shop.orders:
        await shop.connection.fetchrow(*statement(id=order_id))


async def expiries(shop: Shop) -> None:
    """A hundred turns that find nothing overdue."""
    for _ in range(_ASKED):
        await shop.connection.fetch(_CANDIDATES, _EVER, timedelta(minutes=15), 100)


async def purges(shop: Shop) -> None:
    """A thousand keys past their time, taken back."""
    transaction = shop.connection.transaction()
    await transaction.start()
    done = await shop.connection.execute(_OLD_KEYS, _PURGED)
    await transaction.rollback()
    if done != f"DELETE {_PURGED}":
        raise BenchError(f"{done}: there are not as many old keys in both shops")


async def polls(shop: Shop) -> None:
    """What the relay reads in a second: once from the beginning, then from where it knows that nothing comes before."""
    for number in range(_LOOKS):
        rows = await shop.connection.fetch(_READ, shop.floor if number else 0, [], _WAITING)
        if len(rows) != _WAITING:
            raise BenchError(f"{len(rows)} of {_WAITING} waiting events were read")


# -- comparing


@dataclass(frozen=True, slots=True)
class Question:
    """What is compared: the same asked of the small shop and of the big one, and the statement whose buffers stand beside it."""

    text: str
    ask: Callable[[Shop], Awaitable[None]]
    statement: Callable[[Shop], Sequence[Any]]


def questions(prices: Mapping[str, Mapping[str, Any]]) -> list[Question]:
    """Those that should not care how big the shop is."""
    create = pgbench_script(list(_SKUS), [1, 1], [prices[sku]["price_minor"] for sku in _SKUS]).strip().rstrip(";")
    return [
        Question("place an order", creates, lambda _: (create,)),
        Question("one order with its lines", lambda shop: each(shop, _GET), lambda shop: _GET(id=shop.orders[0])),
        Question("its history", lambda shop: each(shop, _TIMELINE), lambda shop: _TIMELINE(id=shop.orders[0])),
        Question("reaper: overdue orders", expiries, lambda _: (_CANDIDATES, _EVER, timedelta(), 100)),
        Question("reaper: a thousand old keys", purges, lambda _: (_OLD_KEYS, _PURGED)),
        Question(f"relay: a second of looking, {_DEAD:,} dead rows ÷ none", polls, lambda shop: (_READ, shop.floor, [], _WAITING)),
    ]


async def measure(lab: Lab, small: Shop, big: Shop) -> list[Found]:
    """Every question in rounds, and its buffers."""
    deep = Question(f"page {_DEEP:,} of everybody's orders ÷ page 1", pages, lambda shop: _ALL(before=shop.before, limit=_PAGE))
    found = [await _compare(lab, deep, replace(big, before=_NEWEST), big)]
    return found + [await _compare(lab, question, small, big) for question in questions(small.prices)]


async def _compare(lab: Lab, question: Question, small: Shop, big: Shop) -> Found:
    lab.say(question.text)
    arms = {"small": partial(question.ask, small), "big": partial(question.ask, big)}
    taken = await lab.interleave(arms, rounds=_ROUNDS)
    touched = [await _touched(shop.connection, *question.statement(shop)) for shop in (small, big)]
    return Found(question.text, ratio(question.text, taken["big"], taken["small"]), *touched)


async def _touched(connection: Connection, sql: str, *values: object) -> int:
    """Buffers of one run, undone."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        return buffers(await explain(connection, sql, *values))
    finally:
        await transaction.rollback()


async def run(orders: int) -> list[Found]:
    """Two shops, one after the other, then everything."""
    say = teller()

    async with AsyncExitStack() as stack:
        shops = []
        for size, dead in ((_SMALL, 0), (orders, _DEAD)):
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plumbline-growth-")))
            lab = await stack.enter_async_context(open_lab(home, orders=size, say=say))
            shops.append(await look_at(lab, await stack.enter_async_context(lab.connect()), dead=dead))
        return await measure(lab, *shops)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--orders", type=int, default=_BIG, help="of the big shop")
    asked = parser.parse_args()
    try:
        found = asyncio.run(run(asked.orders))
    except (BenchError, StackError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(f"\n{asked.orders:,} orders ÷ {_SMALL:,}, time by the service's own statements; at most {_BOUND} each\n")
    print("| asked | ratio | quartiles | buffers, small | buffers, big |\n|---|---|---|---|---|")
    for row in found:
        print(f"| {row.question} | {row.ratio.median:.2f} | {row.ratio.low:.2f}–{row.ratio.high:.2f} | {row.small:,} | {row.big:,} |")
    if missed := [row.question for row in found if row.ratio.median > _BOUND]:
        print(f"\nMISSED: {'; '.join(missed)}")
        return 1
    print(f"\nall within {_BOUND}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
