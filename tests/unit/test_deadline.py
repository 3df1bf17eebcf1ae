"""A bound that costs nothing where nothing waits, and holds where something does."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from service.foundation.deadline import within


async def test_what_does_not_wait_arms_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once() -> int:
        return 7

    def no_timer(_seconds: float) -> None:
        raise AssertionError("a timer was armed")

    monkeypatch.setattr(asyncio, "timeout", no_timer)
    assert await within(0, at_once()) == 7


async def test_an_error_at_once_is_the_callers() -> None:
    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await within(1, fail())


async def test_it_goes_on_through_every_wait_in_the_callers_own_task() -> None:
    task, first, second = asyncio.current_task(), asyncio.Event(), asyncio.Event()

    async def two_waits() -> str:
        asyncio.get_running_loop().call_soon(first.set)
        await first.wait()
        asyncio.get_running_loop().call_soon(second.set)
        await second.wait()
        assert asyncio.current_task() is task
        return "done"

    assert await within(30, two_waits()) == "done"


async def test_what_takes_too_long_is_ended_and_may_clean_up() -> None:
    ended = []

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(TimeoutError):
        await within(0.01, for_ever())
    assert ended == [True]
    await asyncio.sleep(0)  # the caller's task itself was not cancelled


async def test_an_error_of_what_is_awaited_reaches_the_work_first() -> None:
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def mend() -> str:
        with contextlib.suppress(ConnectionError):
            await broken
        return "mended"

    asyncio.get_running_loop().call_soon(broken.set_exception, ConnectionError())
    assert await within(30, mend()) == "mended"


async def test_a_cancelled_caller_cancels_the_work() -> None:
    begun, seen = asyncio.Event(), []

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    caller = asyncio.create_task(within(30, work()))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert seen == ["cancelled"]
