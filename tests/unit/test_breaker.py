"""The breaker's states, walked by a clock that moves by hand."""

from __future__ import annotations

import pytest

from service.foundation.breaker import Breaker
from service.foundation.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def make(clock: ManualClock, **options: object) -> tuple[Breaker, list[str]]:
    moves: list[str] = []
    return Breaker("x", clock=clock, uniform=lambda low, high: (low + high) / 2, changed=lambda _, state: moves.append(state), **options), moves  # type: ignore[arg-type]


def report(breaker: Breaker, results: str) -> None:
    for result in results:
        (breaker.succeeded if result == "." else breaker.failed)()


@pytest.mark.parametrize(
    ("results", "state"),
    [
        ("x" * 19, "closed"),
        ("x" * 20, "open"),
        ("." * 11 + "x" * 9, "closed"),
        ("." * 10 + "x" * 10, "open"),
        ("." * 100 + "x" * 99, "closed"),
        ("." * 20 + "x" * 20, "open"),
    ],
)
def test_it_opens_at_20_calls_and_half_of_them_failed(clock: ManualClock, results: str, state: str) -> None:
    breaker, _ = make(clock)
    report(breaker, results)
    assert breaker.state == state
    assert breaker.allow() == (state == "closed")


def test_a_window_forgets(clock: ManualClock) -> None:
    breaker, _ = make(clock)
    for _ in range(5):
        report(breaker, "x" * 19)
        clock.advance(10.1)
    assert breaker.state == "closed"


def test_one_trial_decides(clock: ManualClock) -> None:
    breaker, moves = make(clock)
    report(breaker, "x" * 20)
    clock.advance(4.9)
    assert not breaker.allow()
    clock.advance(0.2)
    assert breaker.allow()
    assert not breaker.allow(), "one at a time"
    breaker.failed()
    assert not breaker.allow()
    clock.advance(5.1)
    assert breaker.allow()
    breaker.succeeded()
    assert breaker.allow()
    assert breaker.state == "closed"
    assert moves == ["open", "half-open", "open", "half-open", "closed"]
    report(breaker, "x" * 19)
    assert breaker.state == "closed", "it starts from nothing again"


def test_a_trial_that_never_answers_does_not_block_for_ever(clock: ManualClock) -> None:
    breaker, _ = make(clock)
    report(breaker, "x" * 20)
    clock.advance(5.1)
    assert breaker.allow()
    clock.advance(5.1)
    assert breaker.allow()


def test_a_streak_opens_early_and_survives_the_window(clock: ManualClock) -> None:
    breaker, _ = make(clock, streak=3)
    report(breaker, "xx.xx")
    assert breaker.state == "closed"
    clock.advance(11)
    breaker.failed()
    assert breaker.state == "open", "a slow trickle of failures is still a streak"


@pytest.mark.parametrize(("pick", "seconds"), [(min, 4.0), (max, 6.0)])
def test_it_stays_open_for_5_s_give_or_take_a_fifth(clock: ManualClock, pick: object, seconds: float) -> None:
    breaker = Breaker("x", clock=clock, uniform=pick)  # type: ignore[arg-type]
    report(breaker, "x" * 20)
    clock.advance(seconds - 0.01)
    assert not breaker.allow()
    clock.advance(0.02)
    assert breaker.allow()


def test_calls_that_end_while_it_is_open_do_not_prolong_it(clock: ManualClock) -> None:
    breaker, _ = make(clock)
    report(breaker, "x" * 20)
    clock.advance(4)
    report(breaker, "x" * 5)
    clock.advance(1.01)
    assert breaker.allow()


def test_after_a_good_trial_everything_is_counted_anew(clock: ManualClock) -> None:
    breaker, _ = make(clock)
    report(breaker, "x" * 20)
    clock.advance(5.01)
    assert breaker.allow()
    report(breaker, "." + "x" * 19)
    assert breaker.state == "closed"
