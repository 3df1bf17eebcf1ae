"""What the driver makes of a generator's lines: when the run began, when a dependency is cut, what is passed on."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

from loadtests.cut import Cut
from loadtests.plan import Plan
from loadtests.recorder import Recorder
from loadtests.run import Run, _backlog_gone_s, _follow
from loadtests.watch import Sample


def follow(*lines: str, cut: Cut) -> tuple[float, list[str]]:
    said: list[str] = []
    generator = cast("Any", SimpleNamespace(stdout=iter(lines), wait=lambda: 0))
    return _follow(generator, cut, Plan("step"), None, said.append), said


def test_of_several_generators_the_first_starts_the_run_and_the_cut_once() -> None:
    with Cut([], after_s=0, for_s=0) as cut:
        begun_at, said = follow("began 10.5\n", "   2 s  offered 60/s\n", "began 11.0\n", "noise\n", cut=cut)
        deadline = time.monotonic() + 30
        while not cut.times:
            assert time.monotonic() < deadline, "the cut's own thread never ran"
            time.sleep(0.001)
    assert begun_at == 10.5
    assert said == ["   2 s  offered 60/s"]
    assert cut.times == 1


def test_a_generator_that_never_began_cuts_nothing() -> None:
    before = time.monotonic()
    with Cut([], after_s=0, for_s=0) as cut:
        begun_at, _ = follow("noise\n", cut=cut)
    assert begun_at >= before
    assert cut.times == 0


def outage(*backlog: tuple[float, float]) -> Run:
    run = Run(Plan("outage", "outage", rate=10, seconds=25, cut="kafka"), Recorder())
    run.samples = [Sample(at, {"lag": lag, "outbox_rows": 1.0}) for at, lag in backlog]
    return run


def test_a_backlog_is_gone_when_it_is_small_for_good() -> None:
    run = outage((5, 4), (11, 4), (16, 90), (18, 3), (19, 80), (20, 4), (25, 4))
    assert _backlog_gone_s(run, 10, 15) == 4.0, "the last moment above calm counts, not the first below it"
    assert _backlog_gone_s(outage((5, 4), (16, 4), (25, 4)), 10, 15) == 0.0


def test_a_backlog_that_outlasts_the_arrivals_is_gone_when_it_was_drained() -> None:
    run = outage((5, 4), (16, 90), (25, 90))
    run.truth = cast("Any", SimpleNamespace(drain_s=7.0))
    assert _backlog_gone_s(run, 10, 15) == 17.0
