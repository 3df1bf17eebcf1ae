"""The checker on a real stack: green ten times in a row while nothing is wrong, and red for each kind of planted bug.

The bugs are planted with triggers and statements in PostgreSQL and lines in the provider's log, so that the service's
own code stays as it is. Their damage stays, so each is looked for by its own order. About half a minute.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio

from service.dev.issuer import mint
from service.dev.stack import running_stack
from tests.faults.checker.collect import collect
from tests.faults.checker.findings import Violation
from tests.faults.checker.report import judge_all
from tests.faults.shopper import History, Shopper
from tests.faults.sweep import World, is_quiet
from tests.support.servers import free_base_port

_ENDED = ("paid", "rejected", "cancelled")


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home: Path = tmp_path_factory.mktemp("planted")
    with running_stack(home, free_base_port(), kafka="memory") as stack:
        yield World(home, stack, History(home / "history.jsonl"))


@pytest_asyncio.fixture
async def database(spoiled: World) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(spoiled.stack["urls"]["database"])
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def shopper(spoiled: World) -> AsyncIterator[Shopper]:
    urls = spoiled.stack["urls"]
    async with httpx.AsyncClient(base_url=urls["api"], timeout=10) as http:
        yield Shopper(http, mint(spoiled.home, sub="anna", role="customer", issuer=urls["issuer"]), "anna", spoiled.history)


async def _violations(world: World) -> dict[str, list[Violation]]:
    evidence = await collect(world.stack, world.home, history=world.history.path, faults=None)
    return {name: verdict.violations for name, verdict in judge_all(evidence).items() if verdict.violations}


async def _settled(world: World) -> None:
    async with asyncio.timeout(30):
        while not await is_quiet(world):  # noqa: ASYNC110 - nobody tells us when a group has finished
            await asyncio.sleep(0.05)


async def test_a_clean_run_is_green_ten_times(spoiled: World, shopper: Shopper) -> None:
    for _ in range(10):
        placed = await shopper.place(("SKU-0003", 2))
        await shopper.await_status(placed.order_id, "paid")
        if placed.id % 2:
            await shopper.cancel(placed.order_id)
        await _settled(spoiled)
        found = await _violations(spoiled)
        deadline = time.monotonic() + 15
        while found.keys() == {"C1"} and time.monotonic() < deadline:  # the cache group leaves no row to wait for
            found = await _violations(spoiled)
        assert found == {}


_TRIGGER = """
CREATE OR REPLACE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN {answer}; END $$;
CREATE TRIGGER planted BEFORE {event} ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION planted();
"""


def _trigger(table: str, event: str, when: str, *, body: str = "", answer: str = "NEW") -> str:
    return _TRIGGER.format(table=table, event=event, when=when, body=body, answer=answer)


async def _order(shopper: Shopper, *lines: tuple[str, int]) -> str:
    """Without waiting for it: where an event is lost the cache keeps the old order, and so would we see it."""
    return (await shopper.place(*lines)).order_id


async def _buy(shopper: Shopper, *lines: tuple[str, int]) -> str:
    placed = await shopper.place(*lines)
    await shopper.await_status(placed.order_id, *_ENDED)
    return placed.order_id


async def _buy_and_cancel(shopper: Shopper) -> str:
    order_id = await _buy(shopper, ("SKU-0003", 1))
    await shopper.cancel(order_id)
    return order_id


# What is planted, what is done, who must notice.
_PLANTED: list[tuple[str, str, Callable[[Shopper], Awaitable[str]], set[str]]] = [
    ("a lost outbox row", _trigger("outbox", "INSERT", "NEW.type = 'order.paid'", answer="NULL"),
     lambda s: _order(s, ("SKU-0003", 1)), {"O1", "G5"}),
    ("a refund that is not recorded", _trigger("payment", "INSERT", "NEW.kind = 'refund'", answer="NULL"), _buy_and_cancel, {"G6"}),
    ("an effect applied twice", _trigger("stock", "UPDATE", "NEW.available < OLD.available AND OLD.sku = 'SKU-0007'",
     body="NEW.available := NEW.available - (OLD.available - NEW.available);"), lambda s: _buy(s, ("SKU-0007", 3)), {"G1"}),
    ("an oversell", _trigger("stock", "UPDATE", "NEW.available < OLD.available AND OLD.sku = 'SKU-0002'", body="NEW.available := OLD.available;"),
     lambda s: _buy_twice(s, "SKU-0002", 60), {"G2"}),
]  # fmt: skip
_SUBJECTS = {"an effect applied twice": "SKU-0007", "an oversell": "SKU-0002"}


async def _buy_twice(shopper: Shopper, sku: str, quantity: int) -> str:
    await _buy(shopper, (sku, quantity))
    return await _buy(shopper, (sku, quantity))


@pytest.mark.parametrize(("bug", "plant", "act", "expected"), _PLANTED, ids=[bug for bug, *_ in _PLANTED])
async def test_a_planted_bug_is_found(
    spoiled: World, shopper: Shopper, database: asyncpg.Connection[asyncpg.Record], *,
    bug: str, plant: str, act: Callable[[Shopper], Awaitable[str]], expected: set[str],
) -> None:  # fmt: skip
    await database.execute(plant)
    try:
        order_id = await act(shopper)
        await _settled(spoiled)
    finally:
        await database.execute("DROP FUNCTION planted() CASCADE")
    await _assert_found(spoiled, _SUBJECTS.get(bug, order_id), expected)


async def test_a_replay_with_other_bytes_is_found(spoiled: World, shopper: Shopper, database: asyncpg.Connection[asyncpg.Record]) -> None:
    placed = await shopper.place(("SKU-0003", 1))
    await database.execute("UPDATE idempotency_key SET body = body || ' '::bytea WHERE key = $1", placed.key)
    again = await shopper.repeat(placed, ("SKU-0003", 1))
    assert again.replayed
    await _settled(spoiled)
    await _assert_found(spoiled, placed.key, {"I4"})


async def test_money_the_provider_holds_twice_is_found(spoiled: World, shopper: Shopper) -> None:
    order_id = await _buy(shopper, ("SKU-0003", 1))
    log = spoiled.home / "psp.jsonl"
    entry = next(e for e in map(json.loads, log.read_text().splitlines()) if e["order_id"] == order_id)
    with log.open("a") as file:
        file.write(json.dumps(entry | {"key": f"charge:{order_id}:again"}) + "\n")
    await _settled(spoiled)
    await _assert_found(spoiled, order_id, {"W2", "G6"})


async def test_two_orders_for_one_key_are_found(spoiled: World, shopper: Shopper, database: asyncpg.Connection[asyncpg.Record]) -> None:
    placed = await shopper.place(("SKU-0003", 1))
    await database.execute("DELETE FROM idempotency_key WHERE key = $1", placed.key)
    twin = await shopper.repeat(placed, ("SKU-0003", 1))
    assert twin.order_id != placed.order_id
    await shopper.await_status(twin.order_id, "paid")
    await _settled(spoiled)
    await _assert_found(spoiled, placed.order_id, {"I2"})


async def _assert_found(world: World, subject: str, expected: set[str]) -> None:
    found = {name for name, violations in (await _violations(world)).items() if any(v.subject == subject for v in violations)}
    assert expected <= found, f"about {subject} only {sorted(found)} complained"
