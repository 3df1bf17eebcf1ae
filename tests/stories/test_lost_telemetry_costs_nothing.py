"""A collector that is away, slow or refuses costs customers nothing: no request fails, none gets slower, drops are counted.

The control arm is the same stack with a collector that answers. Arms take turns in one run, so that a busy machine
is busy for all of them; the ratio is between each arm's best round, which is the least disturbed one.
"""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from service.dev.state import read_stack
from tests.stories.shop import Shop, until
from tests.support.clients import ApiClient
from tests.support.otlp import Receiver

pytestmark = pytest.mark.alone

ROUNDS, ORDERS, READS, AT_ONCE = 5, 20, 3, 4
NOT_SLOWER = 1.5


async def _requests(client: ApiClient) -> tuple[float, list[int]]:
    """(seconds, statuses) of one burst: creates, and reads of what was created."""
    statuses: list[int] = []

    async def buy(share: int) -> None:
        for _ in range(share):
            placed = await client.place(("SKU-0001", 1))
            reads = [await client.get(f"/orders/{placed.json()['id']}") for _ in range(READS)]
            statuses.extend(answer.status_code for answer in (placed, *reads))

    begin = time.perf_counter()
    await asyncio.gather(*(buy(ORDERS // AT_ONCE) for _ in range(AT_ONCE)))
    return time.perf_counter() - begin, statuses


async def _lost(shop: Shop) -> float:
    [api] = [p for p in read_stack(shop.home)["processes"] if p["role"] == "api"]
    text = (await shop.http.get(f"{api['ops_url']}/metrics")).text
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("orders_spans_dropped_total{"))


async def test_lost_telemetry_costs_nothing(traced: Shop, collector: tuple[Receiver, str], capsys: pytest.CaptureFixture[str]) -> None:
    receiver, _ = collector
    client = traced.login("anna-untraced")
    await _requests(client)
    taken: dict[str, list[float]] = {"ok": [], "slow": [], "refuse": []}
    for _ in range(ROUNDS):
        for mode, seconds in taken.items():
            receiver.mode = mode  # type: ignore[assignment]
            spent, statuses = await _requests(client)
            seconds.append(spent)
            assert set(statuses) == {200, 201}, f"{mode}: {statuses}"
    ratios = {mode: min(taken[mode]) / min(taken["ok"]) for mode in ("slow", "refuse")}
    with capsys.disabled():
        print(f"\ncollector {', '.join(f'{mode}: {ratio:.2f} of the control' for mode, ratio in ratios.items())}, 0 failed")
    assert all(ratio <= NOT_SLOWER for ratio in ratios.values()), ratios

    async def counted() -> bool:
        return await _lost(traced) > 0

    await until(counted, "lost spans are counted")


async def test_a_collector_that_is_away_costs_nothing(traced: Shop, collector: tuple[Receiver, str]) -> None:
    receiver, _ = collector
    client, before = traced.login("ben-untraced"), await _lost(traced)
    receiver.stop()
    _, statuses = await _requests(client)
    assert set(statuses) == {200, 201}

    async def counted() -> bool:
        return await _lost(traced) > before

    await until(counted, "spans without a collector are counted as lost")
    pids = traced.signal("api", signal.SIGTERM)
    await traced.replaced("api", pids)
