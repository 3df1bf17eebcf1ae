"""Waiting times: their bounds, their growth, and contention that is retried three times and no more."""

from __future__ import annotations

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Overloaded
from service.foundation import db
from service.foundation.backoff import equal_jitter, full_jitter, proportional

ATTEMPTS = st.integers(0, 10_000)


@given(ATTEMPTS, st.floats(0.001, 10), st.floats(0.001, 100))
def test_jitter_stays_within_its_ceiling(attempt: int, base: float, cap: float) -> None:
    ceiling = min(cap, base * 2.0 ** min(attempt, 32))
    assert full_jitter(attempt, base_s=base, cap_s=cap, uniform=min) == 0
    assert full_jitter(attempt, base_s=base, cap_s=cap, uniform=max) == ceiling
    assert equal_jitter(attempt, base_s=base, cap_s=cap, uniform=min) == ceiling / 2
    assert equal_jitter(attempt, base_s=base, cap_s=cap, uniform=max) == ceiling
    assert 0 <= full_jitter(attempt, base_s=base, cap_s=cap) <= ceiling


@given(st.floats(0, 1_000), st.floats(0, 0.9))
def test_proportional_keeps_near_its_plan(delay: float, spread: float) -> None:
    assert delay * (1 - spread) <= proportional(delay, spread=spread) <= delay * (1 + spread) + 1e-9


@pytest.mark.parametrize("error", [asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError, asyncpg.SerializationError])
@pytest.mark.parametrize("failures", [0, 1, 2, 3])
async def test_contention_is_tried_three_times(monkeypatch: pytest.MonkeyPatch, error: type[Exception], failures: int) -> None:
    calls, slept = 0, []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def attempt() -> str:
        nonlocal calls
        calls += 1
        if calls <= failures:
            raise error("in the way")
        return "done"

    monkeypatch.setattr(db.asyncio, "sleep", sleep)
    if failures < 3:
        assert await db.retry_contention(attempt) == "done"
    else:
        with pytest.raises(Overloaded):
            await db.retry_contention(attempt)
    assert calls == min(failures + 1, 3)
    assert len(slept) == min(failures, 2)
    assert all(0.01 <= seconds <= 0.1 for seconds in slept)


async def test_what_is_no_contention_is_not_tried_again() -> None:
    calls = 0

    async def attempt() -> None:
        nonlocal calls
        calls += 1
        raise asyncpg.CheckViolationError("no")

    with pytest.raises(asyncpg.CheckViolationError):
        await db.retry_contention(attempt)
    assert calls == 1
