"""One transaction for many callers at once: one round trip and one flush to disk for all who came meanwhile.

A caller alone is served at once; those who come meanwhile go together next. What is answered was committed. A group that
fails as a whole is done again one by one, so that each caller gets their own outcome; so the work must be safe to repeat.
Tests: tests/integration/test_grouped.py; reasons and price: docs/adr/0022.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

import asyncpg

from service.errors import DependencyUnavailable, Overloaded
from service.foundation import metrics, tracing
from service.foundation.db import Connection, Database

V = TypeVar("V")
R = TypeVar("R")
# What is done for the values of one transaction, in their order; answers as many results.
Work = Callable[[Connection, Sequence[V]], Awaitable[Sequence[R]]]

# One that waits this long (for a lock, mostly) no longer keeps the next group from starting.
_STUCK_S: Final = 0.025
# Turns of the event loop in which those just answered may come back and be in the next group.
_BREATHS: Final = 3
_SPAN: Final = {"db.system.name": "postgresql"}


class _Caller(NamedTuple):
    order: tuple[str, ...]
    value: Any
    answer: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class Job(Generic[V, R]):
    """Work that may be done for many at once. `transactional`: it is more than one statement. `span`: what callers wait for, in a trace."""

    span: str
    work: Work[V, R]
    transactional: bool = False


class Jobs:
    """Where those who work side by side meet: one group at a time for each job, of up to `size`."""

    def __init__(self, db: Database, *, size: int) -> None:
        self._db, self._size = db, size
        self._grouped: dict[str, Grouped[Any, Any]] = {}

    async def run(self, job: Job[V, R], value: V, *, order: tuple[str, ...]) -> R:
        """As `Grouped.run`."""
        if job.span not in self._grouped:
            self._grouped[job.span] = Grouped(self._db, job.work, span=job.span, size=self._size, at_once=1, transactional=job.transactional)
        result: R = await self._grouped[job.span].run(value, order=order)
        return result


class Grouped(Generic[V, R]):
    """Callers of one piece of work. `size`: most of them in one transaction; 1: each alone. `at_once`: groups before callers wait.

    `transactional`: the work is more than one statement. `span`: what callers wait for, in a trace.
    """

    def __init__(self, db: Database, work: Work[V, R], *, span: str, size: int, at_once: int, transactional: bool = False) -> None:
        self._db, self._work, self._span, self._size, self._at_once = db, work, span, size, at_once
        self._open = db.transaction if transactional else db.connection
        self._waiting: deque[_Caller] = deque()
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, value: V, *, order: tuple[str, ...]) -> R:
        """The work's result. `order`: what it locks; groups lock in this order, so two of them cannot wait for each other."""
        if self._size == 1:
            return await self._alone(value)
        if self._under_way < self._at_once:
            turn = _Turn(self)
            try:
                return await self._alone(value)
            finally:
                turn.over()
        caller = _Caller(order, value, asyncio.get_running_loop().create_future())
        self._waiting.append(caller)
        with tracing.client_span(self._span, _SPAN):
            results: list[R] = await caller.answer
        # None: the group failed as a whole. Alone it shows whose fault it was.
        return results[0] if results else await self._alone(value)

    def begin(self) -> None:
        """One more is under way."""
        self._under_way += 1

    def end(self) -> None:
        """One is over: those who wait may start."""
        self._under_way -= 1
        while self._waiting and self._under_way < self._at_once:
            waiting = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
            # Without those whose deadline passed, or whose client left.
            if group := [caller for caller in waiting if not caller.answer.done()]:
                task = asyncio.create_task(self._together(group, _Turn(self)), name="grouped")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _alone(self, value: V) -> R:
        async with self._open() as connection:
            return (await self._work(connection, [value]))[0]

    async def _together(self, group: list[_Caller], turn: _Turn) -> None:
        group.sort(key=_order)
        metrics.grouped_size.observe(len(group))
        try:
            async with self._open() as connection:
                results = await self._work(connection, [caller.value for caller in group])
            _tell(group, [[result] for result in results])
        except Exception as error:  # noqa: BLE001 - a server that is away is away for all of them; else one may be at fault, or a lock
            away = isinstance(error, Overloaded | DependencyUnavailable) and not isinstance(error.__cause__, ValueError)
            _tell(group, [error if away else [] for _ in group])
        finally:
            for _ in range(_BREATHS):
                await asyncio.sleep(0)
            turn.over()


class _Turn:
    """One of the `at_once`, until it is over or is stuck."""

    __slots__ = ("_grouped", "_timer")

    def __init__(self, grouped: Grouped[Any, Any]) -> None:
        grouped.begin()
        self._grouped: Grouped[Any, Any] | None = grouped
        self._timer = asyncio.get_running_loop().call_later(_STUCK_S, self.over)

    def over(self) -> None:
        if self._grouped is not None:
            self._timer.cancel()
            grouped, self._grouped = self._grouped, None
            grouped.end()


def pipelined(sql: str) -> Work[Sequence[Any], asyncpg.Record]:
    """Work that is one statement answering one row: the same text for each of them, sent without waiting in between."""

    async def work(connection: Connection, values: Sequence[Sequence[Any]]) -> Sequence[asyncpg.Record]:
        if len(values) > 1:
            rows: Sequence[asyncpg.Record] = await connection.fetchmany(sql, values)
            return rows
        row = await connection.fetchrow(sql, *values[0])
        assert row is not None
        return [row]

    return work


def unnested(sql: str, *shared: Any) -> Work[Sequence[Any], asyncpg.Record]:
    """Work that is one statement for all of them, answering a row each, in their order. Its parameters: `shared`, then an array for each field."""

    async def work(connection: Connection, values: Sequence[Sequence[Any]]) -> Sequence[asyncpg.Record]:
        rows: Sequence[asyncpg.Record] = await connection.fetch(sql, *shared, *zip(*values, strict=True))
        return rows

    return work


def _order(caller: _Caller) -> tuple[str, ...]:
    return caller.order


def _tell(group: Sequence[_Caller], answers: Sequence[list[Any] | Exception]) -> None:
    for caller, answer in zip(group, answers, strict=True):
        if caller.answer.done():
            continue
        if isinstance(answer, Exception):
            caller.answer.set_exception(answer)
        else:
            caller.answer.set_result(answer)
