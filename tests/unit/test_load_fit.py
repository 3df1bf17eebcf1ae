"""A number is named only where the points carry one: scalability law, capacity search, and the noise band of a comparison."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from loadtests.fit import agree, compare, fit_price, fit_usl, search_capacity
from loadtests.recorder import Recorder

USERS = (1, 2, 4, 8, 16, 32, 64)


def law(users: float, *, per_user: float = 100, sigma: float = 0.05, kappa: float = 0.001) -> float:
    return per_user * users / (1 + sigma * (users - 1) + kappa * users * (users - 1))


def test_the_law_is_found_again() -> None:
    fitted = fit_usl([(n, law(n)) for n in USERS])
    assert fitted.refused == ""
    assert (fitted.per_user, fitted.sigma, fitted.kappa) == (pytest.approx(100), pytest.approx(0.05), pytest.approx(0.001))
    assert fitted.best_users == pytest.approx((0.95 / 0.001) ** 0.5)


def test_a_little_noise_moves_it_a_little() -> None:
    rng = random.Random(3)
    fitted = fit_usl([(n, law(n) * rng.uniform(0.97, 1.03)) for n in USERS])
    assert fitted.refused == ""
    assert fitted.best_users == pytest.approx(30.8, rel=0.25)


def test_noise_gets_no_peak() -> None:
    fitted = fit_usl([(n, x) for n, x in zip(USERS, (90, 300, 120, 400, 100, 380, 90), strict=True)])
    assert "R²" in fitted.refused
    assert fitted.best_users is None


def test_few_points_get_no_peak() -> None:
    fitted = fit_usl([(n, law(n)) for n in USERS[:5]])
    assert "at least 6" in fitted.refused
    assert fitted.best_users is None
    assert fit_usl([(n, 0.0) for n in USERS]).refused


def test_throughput_that_never_falls_has_no_peak_and_is_no_refusal() -> None:
    fitted = fit_usl([(n, 100 * n / (1 + 0.1 * (n - 1))) for n in USERS])
    assert fitted.refused == ""
    assert fitted.best_users is None
    assert fitted.sigma == pytest.approx(0.1)


def service(limit: float, *, jitter: Callable[[], float] = lambda: 1.0) -> tuple[list[float], Callable[[float], tuple[bool, float]]]:
    asked: list[float] = []

    def holds(rate: float) -> tuple[bool, float]:
        asked.append(rate)
        return rate <= limit * jitter(), min(rate, limit) * jitter()

    return asked, holds


def test_a_process_has_a_price_and_an_order_has_one() -> None:
    price = fit_price([(count, 0.14 + 0.02 * count) for count in (1, 2, 4)], rate=40)
    assert price.order_ms == pytest.approx(3.5)
    assert price.process == pytest.approx(0.02)
    assert price.carries(0.6) == pytest.approx((0.6 - 0.02) / 0.0035)


def test_noise_makes_no_process_earn_anything() -> None:
    assert fit_price([(1, 0.3), (2, 0.28), (4, 0.27)], rate=40).process == 0
    free = fit_price([(1, 0.01), (2, 0.1), (4, 0.2)], rate=40)
    assert (free.order_ms, free.carries(0.6)) == (0, float("inf"))


def test_capacity_doubles_bisects_and_repeats() -> None:
    asked, holds = service(430)
    found = search_capacity(holds, start=10)
    assert asked[:7] == [10, 20, 40, 80, 160, 320, 640]
    assert asked[7:11] == [480, 400, 440, 420]
    assert asked[11:] == [420] * 3
    assert found.refused == ""
    assert found.low == found.high == 420


def test_a_rate_that_fails_at_once_is_no_capacity() -> None:
    assert "begin lower" in search_capacity(service(5)[1], start=10).refused


def test_a_limit_that_is_never_reached_is_the_generators() -> None:
    assert "the generator is the limit" in search_capacity(service(1e9)[1], start=10, highest=1_000).refused


def test_repeats_that_disagree_end_in_a_refusal() -> None:
    shares = iter([1.0] * 11 + [1.0, 0.7, 1.0])
    found = search_capacity(service(430, jitter=lambda: 1.0)[1], start=10)
    assert found.refused == ""
    calls = 0

    def shaky(rate: float) -> tuple[bool, float]:
        nonlocal calls
        calls += 1
        return rate <= 430, rate * next(shares)

    assert "more than ±20 %" in search_capacity(shaky, start=10).refused.replace("20%", "20 %")
    failing = iter([True] * 6 + [False] + [False, True, False, True] + [True, False, False])
    assert "1 of 3" in search_capacity(lambda rate: (next(failing), rate), start=10).refused


def test_agreement_is_twenty_percent_of_the_middle() -> None:
    assert agree([100, 119, 81])
    assert not agree([100, 121, 90])


def summary(seed: int, *, factor: float = 1.0, requests: int = 3_000) -> dict[str, object]:
    rng, made = random.Random(seed), Recorder()
    for number in range(requests):
        latency = rng.lognormvariate(2.5, 0.4) * factor
        made.request("POST /v1/orders", at_s=number / 100, raw_ms=latency, intended_ms=latency, outcome="ok")
    return {"latency_from": "intended", "recorder": made.to_json()}


def test_two_runs_of_the_same_are_within_noise() -> None:
    assert {row.verdict for row in compare(summary(1), summary(2))} == {"within noise"}


def test_a_quarter_slower_is_worse_and_back_is_better() -> None:
    assert {row.verdict for row in compare(summary(1), summary(2, factor=1.25)) if "p99" not in row.name} == {"worse"}
    assert {row.verdict for row in compare(summary(1, factor=1.4), summary(2)) if "p99" not in row.name} == {"better"}


def test_few_requests_have_a_wide_band() -> None:
    few = next(row for row in compare(summary(1, requests=60), summary(2, factor=1.25, requests=60)) if row.name.endswith("p99"))
    many = next(row for row in compare(summary(1), summary(2)) if row.name.endswith("p99"))
    assert few.noise > 2 * many.noise
    assert few.verdict == "within noise"
