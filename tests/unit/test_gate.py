"""A flood of dead letters stops the group; one trial every five minutes decides; an outage closes the gate."""

from __future__ import annotations

import asyncio

import pytest

from service.foundation.clock import ManualClock
from workers.gate import LETTERS, OPEN_S, WINDOW_S, DeadLetterBreaker, Gate


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> DeadLetterBreaker:
    return DeadLetterBreaker("payments", clock=clock)


def flood(breaker: DeadLetterBreaker, dead: int, fine: int = 0) -> None:
    for outcome in ["applied"] * fine + ["dead"] * dead:
        breaker.ended(outcome)


@pytest.mark.parametrize(("dead", "fine", "state"), [(50, 0, "closed"), (51, 0, "open"), (51, 204, "closed"), (51, 203, "open"), (60, 200, "open")])
def test_more_than_50_a_minute_and_more_than_a_fifth(breaker: DeadLetterBreaker, dead: int, fine: int, state: str) -> None:
    flood(breaker, dead, fine)
    assert breaker.state == state


def test_a_slow_trickle_is_no_flood(breaker: DeadLetterBreaker, clock: ManualClock) -> None:
    for _ in range(10 * LETTERS):
        breaker.ended("dead")
        clock.advance(WINDOW_S / LETTERS + 0.01)
    assert breaker.state == "closed"


def test_moves_to_a_tier_do_not_dilute_the_dead(breaker: DeadLetterBreaker) -> None:
    for _ in range(LETTERS + 1):
        for outcome in ("retried", "retried", "ignored", "ignored", "ignored", "dead"):
            breaker.ended(outcome)
    assert breaker.state == "open"


def test_one_trial_after_five_minutes(breaker: DeadLetterBreaker, clock: ManualClock) -> None:
    flood(breaker, LETTERS + 1)
    clock.advance(OPEN_S - 1)
    assert not breaker.allow()
    clock.advance(2)
    assert [breaker.allow() for _ in range(3)] == [True, False, False]
    breaker.ended("dead", trial=True)
    assert (breaker.state, breaker.allow()) == ("open", False), "still broken: five more minutes"
    clock.advance(OPEN_S + 1)
    assert breaker.allow()
    breaker.ended("applied", trial=True)
    assert breaker.state == "closed"
    flood(breaker, LETTERS)
    assert breaker.state == "closed", "counted anew"


@pytest.mark.parametrize("outcome", ["", "ignored"])
def test_a_trial_that_says_nothing_leaves_the_next_record_to_try(breaker: DeadLetterBreaker, clock: ManualClock, outcome: str) -> None:
    flood(breaker, LETTERS + 1)
    clock.advance(OPEN_S + 1)
    assert breaker.allow()
    breaker.ended(outcome, trial=True)
    assert breaker.state == "open"
    assert breaker.allow()


def test_what_still_ended_while_it_is_open_does_not_prolong_it(breaker: DeadLetterBreaker, clock: ManualClock) -> None:
    flood(breaker, LETTERS + 1)
    clock.advance(OPEN_S - 1)
    flood(breaker, 8)
    clock.advance(1.1)
    assert breaker.allow()


async def test_a_closed_gate_holds_everybody_and_backs_off_until_something_worked() -> None:
    gate, passed = Gate("payments"), []

    async def walk() -> None:
        await gate.passed()
        passed.append(1)

    pausing = asyncio.create_task(gate.pause(0.05, RuntimeError()))
    await asyncio.sleep(0)
    walking = [asyncio.create_task(walk()) for _ in range(3)]
    await asyncio.sleep(0)
    assert (gate.closed, gate.pauses, passed) == (True, 1, [])
    await gate.pause(30, RuntimeError())  # one who failed meanwhile waits with the others, not 30 s
    await asyncio.gather(pausing, *walking)
    assert (gate.closed, gate.pauses, len(passed)) == (False, 1, 3)
    gate.worked()
    assert gate.pauses == 0
