"""The same server, stopped 1.5 s every 5 s: small p99 for those who wait for answers, a second and more for those who are due."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.stall import compare_models, table


def test_the_closed_model_hides_the_stall_and_the_open_one_shows_it(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = tiny()
    closed, opened = compare_models(server.target, [server.process.pid], tmp_path, seconds=11)
    with capsys.disabled():
        print("\n" + table(closed, opened))
    assert closed.extra["cuts"] >= 2, "it was really stopped"
    assert opened.extra["cuts"] >= 2
    assert closed.recorder.all_routes(intended=False).highest >= 1_000, "the closed clients met the stall too"
    assert opened.latency(0.99) >= 1_000
    assert closed.latency(0.99) <= opened.latency(0.99) / 4
