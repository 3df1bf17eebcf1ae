"""One statement for many callers at once: one round trip, one transaction, one flush to disk for all who came meanwhile.

A caller alone runs the plain statement at once; those who come while it runs go together next (asyncpg's `fetchmany`:
the same text, pipelined). What is answered was committed. A group that fails as a whole is run again one by one, so that
each caller gets their own outcome. Tests: tests/integration/test_grouped.py; reasons and price: docs/adr/0023.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import asyncpg

from service.errors import DependencyUnavailable, Overloaded
from service.foundation import metrics, tracing
from service.foundation.db import Database

# One that waits this long (for a lock, mostly) no longer keeps the next group from starting.
_STUCK_S: Final = 0.025
_SPAN: Final = {"db.system.name": "postgresql"}


class _Caller(NamedTuple):
    order: tuple[str, ...]
    values: Sequence[Any]
    answer: asyncio.Future[asyncpg.Record | None]


class Grouped:
    """Callers of one statement that answers one row and may be run again safely after a failure.

    `size`: most of them in one transaction; 1 runs each alone. `at_once`: groups under way before callers begin to wait.
    """

    def __init__(self, db: Database, sql: str, *, span: str, size: int, at_once: int) -> None:
        self._db, self._sql, self._span, self._size, self._at_once = db, sql, span, size, at_once
        self._waiting: deque[_Caller] = deque()
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def fetchrow(self, values: Sequence[Any], *, order: tuple[str, ...]) -> asyncpg.Record:
        """The statement's row. `order`: what it locks; groups lock in this order, so two of them cannot wait for each other."""
        if self._size == 1:
            return await self._alone(values)
        if self._under_way < self._at_once:
            turn = _Turn(self)
            try:
                return await self._alone(values)
            finally:
                turn.over()
        caller = _Caller(order, values, asyncio.get_running_loop().create_future())
        self._waiting.append(caller)
        with tracing.client_span(self._span, _SPAN):
            row = await caller.answer
        # None: the group failed as a whole. Alone it shows whose fault it was.
        return row if row is not None else await self._alone(values)

    async def _alone(self, values: Sequence[Any]) -> asyncpg.Record:
        async with self._db.connection() as connection:
            row = await connection.fetchrow(self._sql, *values)
        assert row is not None  # the statement always answers one row
        return row

    def start_waiting(self) -> None:
        """Send off those who wait, if a group may start."""
        while self._waiting and self._under_way < self._at_once:
            group: list[_Caller] = []
            while self._waiting and len(group) < self._size:
                caller = self._waiting.popleft()
                if not caller.answer.done():  # gone: their deadline passed, or the client left
                    group.append(caller)
            if group:
                task = asyncio.create_task(self._together(group, _Turn(self)), name="grouped")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _together(self, group: list[_Caller], turn: _Turn) -> None:
        group.sort(key=_order)
        metrics.grouped_size.observe(len(group))
        rows: Sequence[asyncpg.Record | None] = [None] * len(group)
        failure: Exception | None = None
        try:
            async with self._db.connection() as connection:
                rows = await connection.fetchmany(self._sql, [caller.values for caller in group])
        except Exception as error:  # noqa: BLE001 - a server that is away is away for all of them; else one may be at fault, or a lock
            if isinstance(error, Overloaded | DependencyUnavailable) and not isinstance(error.__cause__, ValueError):
                failure = error
        finally:
            turn.over()
        for caller, row in zip(group, rows, strict=True):
            if caller.answer.done():
                continue
            if failure is None:
                caller.answer.set_result(row)
            else:
                caller.answer.set_exception(failure)

    def begin(self) -> None:
        """One more is under way."""
        self._under_way += 1

    def end(self) -> None:
        """One is over: the next may start."""
        self._under_way -= 1
        if self._waiting:
            self.start_waiting()


class _Turn:
    """One of the `at_once`, until it is over or is stuck."""

    __slots__ = ("_grouped", "_timer")

    def __init__(self, grouped: Grouped) -> None:
        grouped.begin()
        self._grouped: Grouped | None = grouped
        self._timer = asyncio.get_running_loop().call_later(_STUCK_S, self.over)

    def over(self) -> None:
        if self._grouped is not None:
            self._timer.cancel()
            grouped, self._grouped = self._grouped, None
            grouped.end()


def _order(caller: _Caller) -> tuple[str, ...]:
    return caller.order
