"""Waiting times stay within their bounds for any attempt and any luck."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.foundation.backoff import equal_jitter, full_jitter, proportional

_SECONDS = st.floats(0.001, 10_000)


@given(st.integers(0, 10**6), _SECONDS, _SECONDS, st.randoms())
def test_jitter_is_bounded(attempt: int, base_s: float, cap_s: float, luck: random.Random) -> None:
    ceiling = min(cap_s, base_s * 2 ** min(attempt, 32))
    assert 0 <= full_jitter(attempt, base_s=base_s, cap_s=cap_s, uniform=luck.uniform) <= ceiling
    assert ceiling / 2 <= equal_jitter(attempt, base_s=base_s, cap_s=cap_s, uniform=luck.uniform) <= ceiling


@pytest.mark.parametrize(("attempt", "highest_s"), [(0, 0.5), (1, 1), (2, 2), (5, 16), (6, 30), (7, 30), (10_000, 30)])
def test_the_ceiling_doubles_up_to_the_cap(attempt: int, highest_s: float) -> None:
    def ends(low: float, high: float) -> float:
        seen.append((low, high))
        return high

    seen: list[tuple[float, float]] = []
    full_jitter(attempt, base_s=0.5, cap_s=30, uniform=ends)
    equal_jitter(attempt, base_s=0.5, cap_s=30, uniform=ends)
    assert seen == [(0, highest_s), (highest_s / 2, highest_s)]


def test_proportional_stays_near_its_plan() -> None:
    assert proportional(30, spread=0.2, uniform=lambda low, _high: low) == pytest.approx(24)
    assert proportional(30, spread=0.2, uniform=lambda _low, high: high) == pytest.approx(36)
