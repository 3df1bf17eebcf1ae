"""Waiting for a quiet machine, and measuring again what was disturbed: neither may turn an invalid run into a number."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from loadtests import quiet
from loadtests.plan import Plan
from loadtests.recorder import Recorder
from loadtests.run import Run
from loadtests.verdict import Check


def run_with(foreign: float) -> Run:
    return Run(Plan("step"), Recorder(), checks=[Check("validity", "foreign CPU", foreign, 0.15), Check("objective", "p99", 900, 300)])


@pytest.mark.parametrize(
    ("loads", "asked", "calm"),
    [([5, 5], 2, True), ([90, 5, 90, 5, 5], 5, True), ([24.9, 24.9], 2, True), ([90] * 40, 40, False)],
)
def test_two_calm_seconds_in_a_row_within_forty(loads: list[float], asked: int, *, calm: bool) -> None:
    seconds, given = count(0.0), iter(loads)
    now = [0.0]

    def load() -> float:
        now[0] = next(seconds) + 1
        return next(given)

    assert quiet.await_quiet(load=load, clock=lambda: now[0]) is calm
    assert len(list(given)) == len(loads) - asked


@pytest.mark.parametrize(("foreign", "measured", "last"), [([0.1], 1, 0.1), ([0.5, 0.1], 2, 0.1), ([0.5, 0.4, 0.3, 0.1], 3, 0.3)])
def test_a_disturbed_step_is_measured_again_and_at_last_stays_invalid(foreign: list[float], measured: int, last: float) -> None:
    left: Iterator[float] = iter(foreign)
    said: list[str] = []
    run = quiet.undisturbed(lambda: run_with(next(left)), wait=lambda: True, say=said.append)
    assert run.checks[0].measured == last
    assert len(list(left)) == len(foreign) - measured
    assert len(said) == sum(share > 0.15 for share in foreign[:measured])
    assert bool(quiet.disturbances(run)) is (last > 0.15), "only validity counts: the missed objective is the answer, not a disturbance"


def test_what_held_although_it_was_disturbed_is_believed_and_what_broke_is_not() -> None:
    held, broke = (Run(Plan("step"), Recorder(), checks=[run_with(0.5).checks[0], Check("objective", "p99", p99, 300)]) for p99 in (90, 900))
    for first, measured in ((held, 1), (broke, 2)):
        left = iter([first, run_with(0.1)])
        quiet.undisturbed(lambda runs=left: next(runs), believe=quiet.held_anyway, wait=lambda: True)
        assert 2 - len(list(left)) == measured
    held.recorder.dispatch.dropped = 1
    assert not quiet.held_anyway(held), "an arrival that was not offered was not held"
