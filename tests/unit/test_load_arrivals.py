"""The open model keeps its promise in virtual time: the server cannot slow the arrivals down, and what is missed is counted."""

from __future__ import annotations

import itertools
import random

import pytest

from loadtests.arrivals import Dispatcher, Leg, Shape, intended_times
from loadtests.shapes import COURSES, outage, ramp, spike, steady


class Clock:
    """Time that passes only when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def dispatch(shape: Shape, clock: Clock, start, **how) -> Dispatcher:
    dispatcher = Dispatcher(clock=clock, sleep=clock.sleep, start=lambda due: start(dispatcher, due))
    dispatcher.run(intended_times(shape, **how))
    return dispatcher


def test_it_holds_200_a_second() -> None:
    clock = Clock()
    dues: list[float] = []

    def start(dispatcher: Dispatcher, due: float) -> bool:
        dispatcher.note_start(due)
        dues.append(due - 100.0)
        return True

    done = dispatch(steady(200, 10).shape, clock, start).done
    assert (done.offered, done.started, done.dropped) == (2_000, 2_000, 0)
    assert done.slip_ms.percentile(0.99) < 5
    assert dues == pytest.approx([k / 200 for k in range(2_000)])


def test_a_stalled_generator_makes_up_for_it_and_its_slip_says_so() -> None:
    clock = Clock()

    def start(dispatcher: Dispatcher, due: float) -> bool:
        dispatcher.note_start(due)
        if 101.0 <= due < 101.005:
            clock.now += 0.5  # something else had the CPU
        return True

    done = dispatch(steady(200, 2).shape, clock, start).done
    assert done.started == 400, "nothing was skipped"
    assert done.slip_ms.highest == pytest.approx(495, abs=1)
    assert done.slip_ms.percentile(0.99) > 5, "and the run is invalid"


def test_when_nobody_is_free_an_arrival_is_dropped_and_counted() -> None:
    def start(dispatcher: Dispatcher, due: float) -> bool:
        return due < 101.0

    done = dispatch(steady(100, 2).shape, Clock(), start).done
    assert (done.offered, done.started, done.dropped) == (200, 100, 100)


def test_stopping_ends_at_once() -> None:
    def start(dispatcher: Dispatcher, due: float) -> bool:
        dispatcher.stopped = dispatcher.done.offered == 10
        return True

    assert dispatch(steady(100, 60).shape, Clock(), start).done.offered == 10


@pytest.mark.parametrize("name", COURSES)
def test_a_course_has_as_many_arrivals_as_its_rate_says(name: str) -> None:
    shape = COURSES[name](40.0, 20.0).shape
    times = list(intended_times(shape))
    assert len(times) == pytest.approx(shape.arrivals, abs=1)
    assert times == sorted(times)
    assert all(0 <= at < shape.seconds for at in times)
    for begin in range(18):
        seen = sum(begin <= at < begin + 2 for at in times)
        expected = sum(shape.rate(begin + k / 100) for k in range(200)) / 100
        assert seen == pytest.approx(expected, abs=2), f"{begin} s"


def test_parts_together_are_the_whole() -> None:
    shape = ramp(50, 10).shape
    whole = list(intended_times(shape))
    parts = sorted(at for part in range(3) for at in intended_times(shape, part=part, parts=3))
    assert parts == pytest.approx(whole)


def test_random_gaps_have_the_same_rate() -> None:
    shape = steady(100, 50).shape
    times = [at for part in range(2) for at in intended_times(shape, part=part, parts=2, poisson=random.Random(part))]
    assert len(times) == pytest.approx(5_000, rel=0.05)
    gaps = [b - a for a, b in itertools.pairwise(times) if b > a]
    assert sum(gap < 0.01 for gap in gaps) / len(gaps) == pytest.approx(1 - 2.718**-0.5, abs=0.03), "exponential, of half the rate a part"


def test_a_spike_is_five_times_the_calm_and_says_when() -> None:
    course = spike(100, 40)
    begin, end = course.event_s
    assert course.shape.rate(1) == pytest.approx(20)
    assert course.shape.rate((begin + end) / 2) == pytest.approx(100)
    assert course.shape.rate(end + 1) == pytest.approx(20)
    assert course.shape.seconds == pytest.approx(40)
    assert outage(10, 30).event_s == (12.5, 17.5)


def test_a_shape_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="legs"):
        Shape([])
    with pytest.raises(ValueError, match="legs"):
        Shape([Leg(1, -1, 1)])
