"""`plumbline capacity` is arithmetic a person can repeat: every line against a hand calculation."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest

from service.dev.capacity import Demand, Size, drain_s, in_flight, main, size

SHOP = Demand(tps=50, peak=400, payload_bytes=700)


def lines(demand: Demand) -> dict[str, Size]:
    return {line.name: line for line in size(demand)}


def test_littles_law() -> None:
    assert in_flight(400, 8) == pytest.approx(3.2)
    assert lines(SHOP)["in flight at peak"].value == pytest.approx(400 * 0.008 + 6_000 * 0.002)


def test_a_process_may_be_lost_at_peak() -> None:
    assert lines(SHOP)["API processes"].value == 3  # 400 ÷ 300 → 2, and one
    assert lines(replace(SHOP, peak=50))["API processes"].value == 2
    assert lines(replace(SHOP, peak=601))["API processes"].value == 4


def test_slots_and_pool_warn_before_they_are_full() -> None:
    assert lines(SHOP)["slots used a process"].warning == ""
    assert "APP_HTTP_IN_FLIGHT" in lines(replace(SHOP, read_ms=15))["slots used a process"].warning  # 400×8 + 6000×15 ms over 2
    assert lines(SHOP)["connections used a process"].value == pytest.approx(0.8)
    assert "APP_DB_POOL_SIZE" in lines(replace(SHOP, order_connection_ms=40))["connections used a process"].warning


def test_all_pools_together_stay_below_the_budget() -> None:
    assert lines(SHOP)["connections opened"].value == (3 + 4 + 2) * 10
    assert "above the budget of 180" in lines(replace(SHOP, pool=30))["connections opened"].warning


def test_partitions_are_enough_for_the_workers_and_a_power_of_two_above_twelve() -> None:
    assert lines(SHOP)["worker processes a group"].value == 4
    assert lines(SHOP)["partitions"].value == 12
    assert lines(replace(SHOP, peak=2_000))["partitions"].value == 32  # 17 workers


def test_an_outage_drains_only_if_the_workers_are_faster_than_what_arrives() -> None:
    assert drain_s(1_000, 30, 20) == 100
    assert drain_s(1_000, 20, 20) == math.inf
    assert lines(replace(SHOP, outage_s=60))["drained after"].value == pytest.approx(60 * 400 / (4 * 120 - 50))
    assert "never" in lines(Demand(tps=100, peak=100, worker_orders=100))["drained after"].warning


def test_a_backlog_above_the_cap_is_said() -> None:
    assert lines(replace(SHOP, outage_s=499))["backlog of an outage"].warning == ""
    assert "refused after 500 s" in lines(replace(SHOP, outage_s=501))["backlog of an outage"].warning


def test_storage_grows_with_orders_and_payload() -> None:
    one, two = lines(SHOP), lines(replace(SHOP, tps=100))
    for name in ("PostgreSQL a day", "Kafka"):
        assert two[name].value == pytest.approx(2 * one[name].value)
    assert lines(replace(SHOP, payload_bytes=1_400))["PostgreSQL a day"].value > one["PostgreSQL a day"].value
    assert one["Kafka"].value == pytest.approx(50 * 86_400 * 3 * (700 + 400) * 3 * 7 / 2**30)


@pytest.mark.parametrize(("broken", "names"), [({"peak": 10}, "below the average"), ({"tps": 0, "peak": 1}, "tps"), ({"pool": 0}, "pool")])
def test_what_cannot_be_is_refused(broken: dict[str, float], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        size(replace(SHOP, **broken))


def test_the_command_prints_a_table_and_warns_by_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as calm:
        main(["--tps", "50", "--peak", "100", "--payload", "700"])
    assert calm.value.code == 0
    assert "connections opened" in capsys.readouterr().out
    with pytest.raises(SystemExit) as tight:
        main(["--tps", "50", "--peak", "400", "--pool", "40"])
    assert tight.value.code == 1
    with pytest.raises(SystemExit) as nonsense:
        main(["--tps", "50", "--peak", "5"])
    assert nonsense.value.code == 2
    assert "below the average" in capsys.readouterr().err


def test_every_assumption_can_be_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for field in fields(Demand):
        option = "--payload" if field.name == "payload_bytes" else f"--{field.name.replace('_', '-')}"
        assert option in text
