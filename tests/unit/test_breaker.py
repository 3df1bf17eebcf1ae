"""The circuit breaker, walked by hand: closed, open, half-open, and the counting in between."""

from __future__ import annotations

import pytest

from service.foundation.breaker import MINIMUM_CALLS, OPEN_S, WINDOW_S, Breaker
from service.foundation.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def moves() -> list[str]:
    return []


@pytest.fixture
def breaker(clock: ManualClock, moves: list[str]) -> Breaker:
    return Breaker("x", clock=clock, uniform=lambda low, high: (low + high) / 2, changed=lambda _name, state: moves.append(state))


def _report(breaker: Breaker, *, good: int = 0, bad: int = 0) -> None:
    for _ in range(good):
        breaker.succeeded()
    for _ in range(bad):
        breaker.failed()


@pytest.mark.parametrize(
    ("good", "bad", "state"),
    [(0, 19, "closed"), (0, 20, "open"), (10, 10, "open"), (11, 9, "closed"), (30, 29, "closed"), (30, 30, "open"), (1000, 0, "closed")],
)
def test_opens_at_twenty_calls_with_half_of_them_failed(breaker: Breaker, good: int, bad: int, state: str) -> None:
    _report(breaker, good=good, bad=bad)
    assert breaker.state == state
    assert breaker.allow() is (state == "closed")


def test_failures_of_another_window_are_forgotten(breaker: Breaker, clock: ManualClock) -> None:
    _report(breaker, bad=MINIMUM_CALLS - 1)
    clock.advance(WINDOW_S + 0.001)
    _report(breaker, bad=MINIMUM_CALLS - 1)
    assert breaker.state == "closed"
    _report(breaker, bad=1)
    assert breaker.state == "open"


def _open(breaker: Breaker) -> None:
    _report(breaker, bad=MINIMUM_CALLS)


def test_one_trial_after_the_pause_closes_it(breaker: Breaker, clock: ManualClock, moves: list[str]) -> None:
    _open(breaker)
    clock.advance(OPEN_S - 0.01)
    assert not breaker.allow()
    clock.advance(0.02)
    assert [breaker.allow() for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert breaker.allow()
    _report(breaker, bad=MINIMUM_CALLS - 1)
    assert moves == ["open", "half-open", "closed"], "counted anew, each move told once"


def test_a_failed_trial_opens_it_for_another_pause(breaker: Breaker, clock: ManualClock, moves: list[str]) -> None:
    _open(breaker)
    clock.advance(OPEN_S)
    assert breaker.allow()
    clock.advance(1)
    breaker.failed()
    clock.advance(OPEN_S - 0.01)
    assert not breaker.allow()
    clock.advance(0.02)
    assert breaker.allow()
    assert moves == ["open", "half-open", "open", "half-open"]


def test_a_trial_whose_result_never_comes_does_not_shut_it_for_ever(breaker: Breaker, clock: ManualClock) -> None:
    _open(breaker)
    clock.advance(OPEN_S)
    assert breaker.allow()
    clock.advance(OPEN_S)
    assert [breaker.allow(), breaker.allow()] == [True, False]


def test_calls_that_end_while_it_is_open_do_not_prolong_it(breaker: Breaker, clock: ManualClock) -> None:
    _open(breaker)
    clock.advance(OPEN_S - 1)
    _report(breaker, bad=5)
    clock.advance(1)
    assert breaker.allow()


def test_a_streak_opens_at_once_and_any_success_breaks_it(clock: ManualClock) -> None:
    breaker = Breaker("x", streak=3, clock=clock)
    for _ in range(5):
        _report(breaker, bad=2, good=1)
    assert breaker.state == "closed"
    _report(breaker, bad=2)
    clock.advance(WINDOW_S * 100)
    _report(breaker, bad=1)
    assert breaker.state == "open", "a slow trickle is a streak too"


@pytest.mark.parametrize(("end", "pause_s"), [(0, 0.8 * OPEN_S), (1, 1.2 * OPEN_S)])
def test_the_pause_is_spread_by_a_fifth(clock: ManualClock, end: int, pause_s: float) -> None:
    breaker = Breaker("x", clock=clock, uniform=lambda low, high: (low, high)[end])
    _open(breaker)
    clock.advance(pause_s - 0.01)
    assert not breaker.allow()
    clock.advance(0.02)
    assert breaker.allow()
