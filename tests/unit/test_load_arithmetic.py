"""Percentiles with three digits, and recorders that merge without loss."""

from __future__ import annotations

import json
import random

import pytest

from loadtests.histogram import Histogram, three_digits
from loadtests.recorder import Recorder


@pytest.mark.parametrize(
    ("value", "kept"), [(0, 0), (0.01234, 0.012), (1.2345, 1.23), (12.345, 12.3), (147, 147), (1_049, 1_050), (3_432, 3_430), (58_760, 58_800)]
)
def test_three_digits_are_kept(value: float, kept: float) -> None:
    assert three_digits(value) == pytest.approx(kept)


def test_percentiles_are_within_half_a_percent() -> None:
    rng = random.Random(7)
    values = [rng.lognormvariate(3, 1.2) for _ in range(20_000)]
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    values.sort()
    for share in (0.5, 0.95, 0.99, 0.999):
        assert histogram.percentile(share) == pytest.approx(values[int(share * len(values)) - 1], rel=0.006)
    assert histogram.mean == pytest.approx(sum(values) / len(values), rel=0.01)
    assert histogram.cumulative()[-1][1] == 1.0


def test_nothing_has_no_percentile() -> None:
    assert (Histogram().percentile(0.99), Histogram().highest, Histogram().mean) == (0, 0, 0)


def recorded(seed: int) -> Recorder:
    rng, made = random.Random(seed), Recorder()
    for at in range(300):
        made.arrival(at / 30, dropped=at % 50 == 49)
        outcome = "shed" if at % 20 == 19 else "ok"
        made.request(
            "GET /x", at_s=at / 30, raw_ms=rng.uniform(1, 50), intended_ms=rng.uniform(1, 90), outcome=outcome, error="503" * (outcome != "ok")
        )
        made.dispatch.offered += 1
        made.dispatch.slip_ms.add(rng.uniform(0, 9))
    made.cpu_share = seed / 10
    return made


def test_what_processes_hand_in_bit_by_bit_is_what_one_would_have_seen() -> None:
    together, whole = Recorder(), Recorder()
    for seed in (1, 2):
        whole.merge(recorded(seed).to_json())
        made = recorded(seed)
        together.merge(json.loads(json.dumps(made.drain())))
        made.request("GET /y", at_s=1, raw_ms=5, intended_ms=None, outcome="ok")
        together.merge(json.loads(json.dumps(made.drain())))
        assert made.requests == 0, "handed over is forgotten"
    assert together.routes["GET /y"].raw.total == 2
    del together.routes["GET /y"]
    assert together.routes["GET /x"].intended.counts == whole.routes["GET /x"].intended.counts
    assert together.routes["GET /x"].outcomes == {"ok": 570, "shed": 30}
    assert together.dispatch.slip_ms.counts == whole.dispatch.slip_ms.counts
    assert together.dispatch.offered == 600
    assert together.cpu_share == 0.2, "the busiest process is the one that lies first"


def test_the_timeline_has_a_row_for_every_second() -> None:
    rows = recorded(1).timeline()
    assert [row["t"] for row in rows] == list(range(10))
    assert sum(row["offered"] for row in rows) == 300
    assert sum(row["dropped"] for row in rows) == 6
    assert sum(row["shed"] for row in rows) == 15
    assert all(row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in rows)
