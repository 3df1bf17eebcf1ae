"""A bound on how long something may take, that costs nothing when it does not wait.

`asyncio.timeout` arms a timer for every block; most requests here never wait for anything slow (their body is
there, their object is cached). So the work is begun first, and the timer armed only if it did not finish at once.
Tests: tests/unit/test_deadline.py.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, begun at once in the caller's task. Raises `TimeoutError` after `seconds`, and ends it."""
    try:
        waits_for = work.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    async with asyncio.timeout(seconds):
        return await _go_on(work, waits_for)


@types.coroutine
def _go_on(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Hand what `work` waits for to the event loop, and what comes of it back to `work`, until it is done."""
    while True:
        answer, error = None, None
        try:
            answer = yield waits_for
        except BaseException as caught:  # noqa: BLE001 - a cancellation belongs to `work` as much as any error
            error = caught
        try:
            waits_for = work.send(answer) if error is None else work.throw(error)
        except StopIteration as finished:
            result: T = finished.value
            return result
