"""Callers that come together commit together, and nobody pays for it: not for another's mistake, not for another's lock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from service.errors import DependencyUnavailable
from service.foundation.db import Database
from service.foundation.grouped import Grouped, pipelined
from service.settings import Settings
from tests.integration.waiting import until

_WHO = "SELECT pg_current_xact_id()::text AS xact, $1::int AS number"
_LOCK = "SELECT $1::text AS name FROM (SELECT pg_advisory_xact_lock(hashtextextended($1, 0))) AS held"
Statements = Grouped[Sequence[Any], asyncpg.Record]
_KEYS, _CALLS = 20, 600


@pytest_asyncio.fixture
async def db(settings: Settings) -> AsyncIterator[Database]:
    """A pool whose waits for locks are long enough to be looked at."""
    patient = {"statement_timeout_ms": 60_000, "command_timeout_ms": 60_000, "lock_timeout_ms": 50_000}
    found = Database(settings.db.model_copy(update={"pool_size": 4, "queue_timeout_ms": 20_000, **patient}), application="grouped")
    await found.open()
    yield found
    await found.close()


def _grouped(db: Database, sql: str, *, size: int = 16) -> Statements:
    return Grouped(db, pipelined(sql), span="SELECT", size=size, at_once=1)


async def _numbers(grouped: Statements, count: int) -> list[str]:
    rows = await asyncio.gather(*(grouped.run((number,), order=(f"{number:03}",)) for number in range(count)))
    assert [row["number"] for row in rows] == list(range(count)), "each caller gets their own row"
    return [row["xact"] for row in rows]


async def test_those_who_come_while_one_runs_share_one_transaction(db: Database) -> None:
    transactions = await _numbers(_grouped(db, _WHO), 30)
    assert [transactions.count(name) for name in dict.fromkeys(transactions)] == [1, 16, 13]


async def test_a_size_of_one_runs_each_alone(db: Database) -> None:
    assert len(set(await _numbers(_grouped(db, _WHO, size=1), 30))) == 30


async def test_one_callers_mistake_is_theirs_alone(db: Database) -> None:
    grouped = _grouped(db, "SELECT 10 / $1::int AS tenth")
    answers = await asyncio.gather(*(grouped.run((number,), order=("",)) for number in (1, 2, 0, 5)), return_exceptions=True)
    assert isinstance(answers[2], asyncpg.DivisionByZeroError)
    assert [answer["tenth"] for answer in answers if isinstance(answer, asyncpg.Record)] == [10, 5, 2]


async def test_a_value_the_driver_refuses_is_its_callers_alone(db: Database) -> None:
    grouped = _grouped(db, _WHO)
    answers = await asyncio.gather(*(grouped.run((number,), order=("",)) for number in (1, 2, 2**40, 3)), return_exceptions=True)
    assert [isinstance(answer, asyncpg.Record) for answer in answers] == [True, True, False, True]


async def test_groups_of_two_processes_never_wait_for_each_other_in_a_circle(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, alone = [f"circle-{number}" for number in range(_KEYS)], 0
    # The locks of a circle would end a group by an error, and its callers would be run alone: it must not come to that.
    run_alone = Grouped._alone

    async def counted(self: Statements, values: tuple[str, ...]) -> asyncpg.Record:
        nonlocal alone
        alone += 1
        return await run_alone(self, values)

    monkeypatch.setattr(Grouped, "_alone", counted)
    two = [_grouped(db, _LOCK, size=8), _grouped(db, _LOCK, size=8)]
    wanted = random.Random(11).choices(keys, k=_CALLS)

    async def call(number: int, key: str) -> str:
        row = await two[number % 2].run((key,), order=(key,))
        return str(row["name"])

    assert await asyncio.gather(*(call(number, key) for number, key in enumerate(wanted))) == wanted
    assert alone == 2, "only the first of each"


async def test_who_waits_for_a_lock_holds_up_nobody_who_comes_later(db: Database, settings: Settings) -> None:
    holder = await asyncpg.connect(settings.db.url.get_secret_value())
    grouped = _grouped(db, _LOCK)
    try:
        async with holder.transaction():
            await holder.fetchrow(_LOCK, "held")
            waiting = asyncio.create_task(grouped.run(("held",), order=("held",)))
            others = await asyncio.gather(*(grouped.run((f"free-{number}",), order=(f"free-{number}",)) for number in range(5)))
            assert [row["name"] for row in others] == [f"free-{number}" for number in range(5)]
            assert not waiting.done()
        assert (await waiting)["name"] == "held"
    finally:
        await holder.close()


async def test_a_caller_who_left_is_not_run_and_harms_nobody(db: Database) -> None:
    grouped = _grouped(db, _WHO)
    tasks = [asyncio.create_task(grouped.run((number,), order=(str(number),))) for number in range(5)]
    await asyncio.sleep(0)  # the first is under way, the others wait
    tasks[2].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, asyncpg.Record) for answer in answers] == [True, True, False, True, True]


async def test_a_connection_lost_under_a_group_is_unavailable_for_each_of_them(db: Database, settings: Settings) -> None:
    holder = await asyncpg.connect(settings.db.url.get_secret_value())
    grouped = _grouped(db, _LOCK)
    try:
        async with holder.transaction():
            await holder.fetchrow(_LOCK, "m")
            first = asyncio.create_task(grouped.run(("a",), order=("a",)))
            group = [asyncio.create_task(grouped.run((key,), order=(key,))) for key in ("l", "m", "n")]
            await first

            async def blocked() -> int | None:
                found: int | None = await holder.fetchval(
                    "SELECT pid FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))", holder.get_server_pid()
                )
                return found

            pid = await until(blocked, "the group waits for the lock")
            await holder.execute("SELECT pg_terminate_backend($1)", pid)
            answers = await asyncio.gather(*group, return_exceptions=True)
        assert [type(answer) for answer in answers] == [DependencyUnavailable] * 3
        assert (await grouped.run(("after",), order=("after",)))["name"] == "after"
    finally:
        await holder.close()
