"""The same server, stopped 1.5 s every 5 s: small p99 for those who wait for answers, a second and more for those who are due."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.run import Run
from loadtests.stall import compare_models, table

_LEEWAY = 4  # the machine may stand still for a second, too


def test_the_closed_model_hides_the_stall_and_the_open_one_shows_it(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = tiny()
    closed, opened = compare_models(server.target, [server.process.pid], tmp_path, seconds=11)
    with capsys.disabled():
        print("\n" + table(closed, opened))
    assert closed.extra["cuts"] >= 2, "it was really stopped"
    assert opened.extra["cuts"] >= 2
    assert closed.recorder.all_routes(intended=False).highest >= 1_000, "the closed clients met the stall too"
    assert opened.latency(0.99) >= 1_000
    # Each closed client meets a stall once, however many requests it makes; of the arrivals all that were due in it do.
    few, many = slow(closed), slow(opened)
    assert few <= 2 * (closed.extra["cuts"] + 1) + _LEEWAY
    assert many >= 0.5 * 40 * (opened.extra["cuts"] - 1) - _LEEWAY
    assert many / opened.recorder.requests >= 3 * few / closed.recorder.requests
    # Fewer than one in a hundred is what a 99th percentile does not see (on a busy machine the clients are too slow for that).
    assert closed.latency(0.99) < 1_000 or few >= closed.recorder.requests / 100


def slow(run: Run) -> int:
    """Answers that took a second or more."""
    seen = run.recorder.all_routes(intended=run.plan.open_model)
    return sum(times for value, times in seen.counts.items() if value >= 1_000)
