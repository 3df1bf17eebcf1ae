"""Every path to an exit code, with controlled numbers: 0, 1, 2, 3 and which wins."""

from __future__ import annotations

import pytest

from loadtests import verdict
from loadtests.recorder import Recorder
from loadtests.report import terminal
from loadtests.verdict import BROKEN, INVALID, MISSED, OK, Check

SLO = verdict.load_objectives()
QUIET = {"drain_s": 1.0, "paid": 100, "placed_to_paid_p99_s": 2.0}


def a_run(*, latency_ms: float = 20, slip_ms: float = 1, dropped: int = 0, cpu: float = 0.3, failed: int = 0, shed: int = 0) -> Recorder:
    made = Recorder()
    made.cpu_share = cpu
    for number in range(1_000):
        outcome = "error" if number < failed else "shed" if number < failed + shed else "ok"
        made.request("POST /v1/orders", at_s=number / 100, raw_ms=latency_ms / 2, intended_ms=latency_ms, outcome=outcome)
        made.dispatch.slip_ms.add(slip_ms)
    made.dispatch.offered = 1_000 + dropped
    made.dispatch.started, made.dispatch.served, made.dispatch.dropped = 1_000, 1_000 - failed - shed, dropped
    return made


def judged(recorder: Recorder, *, foreign: float = 0.02, violations: dict[str, list[str]] | None = None) -> list[Check]:
    return (
        verdict.validity(recorder, SLO, foreign_cpu=foreign)
        + verdict.objectives(recorder, SLO)
        + verdict.saga(QUIET, SLO)
        + verdict.invariants(violations or {}, ["I2", "G2"])
    )


@pytest.mark.parametrize(
    ("run", "code", "reason"),
    [
        ({}, OK, ""),
        ({"latency_ms": 400}, MISSED, "POST /v1/orders p99 400 ms, at most 300"),
        ({"failed": 5}, MISSED, "errors 0.005 of requests"),
        ({"shed": 5}, MISSED, "shed 0.005 of requests"),
        ({"failed": 40}, MISSED, "achieved 0.96 of offered, at least 0.98"),
        ({"slip_ms": 6}, INVALID, "dispatch slip p99 6 ms, at most 5"),
        ({"dropped": 3}, INVALID, "dropped arrivals 0.00299 of offered"),
        ({"cpu": 0.8}, INVALID, "generator CPU 0.8 of a core, at most 0.7"),
    ],
)
def test_one_reason_one_code(run: dict[str, float], code: int, reason: str) -> None:
    checks = judged(a_run(**run))
    assert verdict.exit_code(checks) == code
    line = terminal.verdict_line(checks)
    assert f"(exit {code})" in line
    assert reason in line


def test_a_busy_machine_is_the_generators_problem() -> None:
    checks = judged(a_run(), foreign=0.4)
    assert verdict.exit_code(checks) == INVALID
    assert "foreign CPU 0.4 of the machine, at most 0.15" in terminal.verdict_line(checks)


def test_an_invalid_run_says_nothing_about_objectives_but_a_broken_invariant_always_counts() -> None:
    slow_and_starved = a_run(latency_ms=900, slip_ms=50)
    assert verdict.exit_code(judged(slow_and_starved)) == INVALID
    assert "p99 900" not in terminal.verdict_line(judged(slow_and_starved))
    checks = judged(slow_and_starved, violations={"I2": ["order 7 belongs to 2 keys"]})
    assert verdict.exit_code(checks) == BROKEN
    assert "order 7 belongs to 2 keys" in terminal.verdict_line(checks)


def test_a_run_without_an_answer_is_invalid() -> None:
    assert verdict.exit_code(verdict.validity(Recorder(), SLO)) == INVALID


def test_a_growing_backlog_cannot_look_good() -> None:
    late = verdict.saga({"drain_s": 40.0, "paid": 100, "placed_to_paid_p99_s": 35.0}, SLO)
    assert [check.name for check in late if not check.holds] == ["drained after the last arrival", "placed → paid p99"]


def spiked(**late: float) -> Recorder:
    """20 answers a second: slow from 10 to 17 s, and those of `late` (s25=900: one answer of that second took as long)."""
    made = Recorder()
    for at in range(30):
        for number in range(20):
            slow = 900.0 if 10 <= at < 17 else late.get(f"s{at}", 20.0) if number == 0 else late.get(f"all{at}", 20.0)
            made.request("GET /v1/products", at_s=at + number / 20, raw_ms=slow, intended_ms=slow, outcome="ok")
    return made


def test_recovery_ends_where_the_rest_of_the_run_is_within_its_p99() -> None:
    assert verdict.recovery_s(spiked(), 15.0, 300) == 2.0
    assert verdict.recovery_s(spiked(), 20.0, 300) == 0.0
    assert verdict.recovery_s(spiked(all25=900), 15.0, 300) == 11.0, "well again means for good"
    assert verdict.recovery_s(spiked(s25=900), 15.0, 300) == 2.0, "one slow answer of 260 is no spike: what is limited is a 99th percentile"


def test_a_failure_after_the_spike_is_no_recovery() -> None:
    made = spiked()
    made.request("GET /v1/products", at_s=25.5, raw_ms=1, intended_ms=1, outcome="error")
    assert verdict.recovery_s(made, 15.0, 300) == 11.0


def test_a_slope_is_a_minute() -> None:
    assert verdict.slope_a_minute([(t, 100 + t * 0.5) for t in range(60)]) == pytest.approx(30)
    assert verdict.slope_a_minute([(0, 1), (1, 2)]) == 0
    assert verdict.slope_a_minute([(1, 1), (1, 2), (1, 3)]) == 0


def test_a_closed_run_is_judged_from_sending() -> None:
    made = Recorder()
    for number in range(100):
        made.request("GET /v1/products", at_s=number / 10, raw_ms=200, intended_ms=None, outcome="ok")
    checks = verdict.objectives(made, SLO, open_model=False)
    assert [check.name for check in checks if not check.holds] == ["GET /v1/products p95", "GET /v1/products p99"]
    assert not any(check.name == "achieved" for check in checks)
