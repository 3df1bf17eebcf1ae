"""The deepest cause is named, with its evidence; a starved or idle system is not blamed on a handler."""

from __future__ import annotations

import pytest

from loadtests.saturation import all_saturated, first_to_saturate
from loadtests.watch import RunQueue, Sample, Scrape

HEALTHY = {
    "cpu_api": 0.3, "cpu_postgres": 0.2, "cpu_generator": 0.2, "cpu_machine": 0.9, "cpu_foreign": 0.02, "api_processes": 1, "starved_api": 0.02,
    "pool_share": 0.3, "pool_size": 10, "slots_share": 0.1, "loop_ms": 1, "loop_lag_ms": 5, "answered": 100, "lag": 3, "pg_active": 1,
}  # fmt: skip


def samples(*, healthy: int = 4, sick: int = 8, scanned: dict[str, float] | None = None, **values: float) -> list[Sample]:
    good = [Sample(k * 0.5, dict(HEALTHY)) for k in range(healthy)]
    bad = [Sample((healthy + k) * 0.5, HEALTHY | values, dict(scanned or {})) for k in range(sick)]
    return good + bad


@pytest.mark.parametrize(
    ("values", "named", "evidence"),
    [
        ({"cpu_generator": 0.95}, "generator CPU", "generator 0.95"),
        ({"pool_share": 1.0, "pool_size": 1, "pool_waits": 40, "pool_wait_ms": 250}, "database pool wait", "1 of 1 connections in use"),
        ({"pool_share": 1.0, "pool_waits": 9, "slots_share": 1.0}, "database pool wait", "10 of 10"),
        ({"loop_ms": 400}, "the API's event loop, blocked in a handler", "400 ms later"),
        ({"loop_ms": 90, "loop_lag_ms": 250}, "the API's event loop, blocked in a handler", "0.30 cores"),
        ({"cpu_api": 0.97, "loop_ms": 300, "pool_share": 1.0, "pool_waits": 9}, "API CPU", "API 0.97"),
        ({"cpu_api": 0.5, "starved_api": 0.45, "loop_ms": 300}, "API CPU", "waited 45% of the time for a core"),
        ({"cpu_postgres": 1.2, "pool_share": 1.0, "pool_waits": 9}, "PostgreSQL CPU", "PostgreSQL 1.20"),
        ({"pg_locked": 9, "pool_share": 1.0, "pool_waits": 9, "slots_share": 1.0}, "PostgreSQL locks", "9.0 sessions"),
        ({"slots_share": 1.0, "handler_ms": 1200}, "admission slots", "1200 ms a request"),
        ({"lag": 900, "lag_payments": 880, "lag_timeline": 20}, "consumer group payments", "900 records"),
        ({"outbox_age_s": 9}, "relay", "9.0 s for Kafka"),
        ({"cpu_machine": 1.99, "cpu_foreign": 0.6}, "CPU of the machine", "other programs took 60%"),
    ],
)
def test_one_cause(values: dict[str, float], named: str, evidence: str) -> None:
    found = first_to_saturate(samples(**values))
    assert found is not None
    assert named in found.resource
    assert evidence in found.evidence
    assert found.at_s == 2.0


def test_a_missing_index_is_named_with_its_table() -> None:
    found = first_to_saturate(samples(scanned={"orders": 2_000_000, "stock": 5}, cpu_postgres=0.9, pool_share=1.0, pool_waits=5))
    assert found is not None
    assert found.resource == "PostgreSQL reading orders without an index"
    assert "read 2,000,000 rows of `orders` a second for 100 answers" in found.evidence


def test_small_tables_that_are_scanned_as_a_whole_are_no_missing_index() -> None:
    assert first_to_saturate(samples(scanned={"product": 60_000}, answered=1_000)) is None


def test_nothing_full_names_nothing() -> None:
    assert first_to_saturate(samples()) is None
    assert first_to_saturate([]) is None


def test_a_moment_is_no_saturation() -> None:
    assert first_to_saturate(samples(sick=2, pool_share=1.0, pool_waits=5)) is None


def test_a_starved_api_is_not_accused_of_sleeping() -> None:
    """On a busy machine the loop is late because it has no core: its run queue says so."""
    found = first_to_saturate(samples(loop_ms=600, cpu_api=0.15, starved_api=0.8, cpu_foreign=0.7, cpu_machine=2.0))
    assert found is not None
    assert found.resource == "CPU of the machine"


def test_all_that_was_full_is_listed_from_the_bottom_up() -> None:
    found = all_saturated(samples(pg_locked=5, pool_share=1.0, pool_waits=5, slots_share=1.0))
    assert [entry.resource.split(" (")[0] for entry in found] == ["PostgreSQL locks", "database pool wait", "admission slots"]


METRICS = """# TYPE orders_db_pool_wait_seconds histogram
orders_db_pool_wait_seconds_bucket{le="0.005"} %d
orders_db_pool_wait_seconds_bucket{le="0.1"} %d
orders_db_pool_wait_seconds_bucket{le="+Inf"} %d
orders_db_pool_wait_seconds_sum 1.5
orders_db_pool_in_use 7.0
orders_shed_total{lane="critical"} 2.0
orders_shed_total{lane="sheddable"} 3.0
orders_consumer_lag{group="payments"} 12.0
python_gc_objects_collected_total{generation="0"} 9.0
"""


def test_metrics_are_read_and_only_what_grew_counts() -> None:
    before, now = Scrape(METRICS % (100, 100, 100)), Scrape(METRICS % (110, 200, 200))
    assert now.totals["orders_db_pool_in_use"] == 7
    assert now.totals["orders_shed_total"] == 5
    assert now.by_group["orders_consumer_lag", "payments"] == 12
    assert now.quantile_ms("orders_db_pool_wait_seconds", 0.99, before) == 100
    assert now.quantile_ms("orders_db_pool_wait_seconds", 0.99, now) == 0
    assert now.quantile_ms("nothing", 0.99) == 0


def test_a_process_that_is_gone_has_waited_for_nothing() -> None:
    assert RunQueue().look([2**22 + 1]) == 0
