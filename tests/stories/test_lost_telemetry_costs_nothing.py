"""A collector that is away, slow or refuses costs customers nothing: no request fails, none gets slower, drops are counted.

The control arm is the same stack with a collector that answers. Arms take turns in one run and are compared round by
round; the ratio is the median of the rounds, which half of them may be disturbed without moving. What is timed are
reads: a purchase leaves the workers busy, and the next arm would pay for that.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from statistics import median
from typing import Any

import pytest

from service.dev.state import read_stack
from tests.stories.shop import Shop, until
from tests.support.clients import ApiClient
from tests.support.otlp import Mode, Receiver

pytestmark = pytest.mark.alone

MODES: tuple[Mode, ...] = ("ok", "slow", "refuse")
ROUNDS, ORDERS, READS, AT_ONCE = 15, 12, 60, 4
NOT_SLOWER = 1.5


async def _place(client: ApiClient) -> list[dict[str, Any]]:
    """A few orders; each was taken."""
    placed = [await client.place(("SKU-0001", 1)) for _ in range(ORDERS)]
    assert {answer.status_code for answer in placed} == {201}
    return [answer.json() for answer in placed]


async def _read(client: ApiClient, order_id: str) -> tuple[float, set[int]]:
    """(seconds, statuses) of a burst of reads."""
    statuses: set[int] = set()

    async def look(share: int) -> None:
        for _ in range(share):
            statuses.add((await client.get(f"/orders/{order_id}")).status_code)

    begin = time.perf_counter()
    await asyncio.gather(*(look(READS // AT_ONCE) for _ in range(AT_ONCE)))
    return time.perf_counter() - begin, statuses


async def _lost(shop: Shop) -> float:
    [api] = [p for p in read_stack(shop.home)["processes"] if p["role"] == "api"]
    text = (await shop.http.get(f"{api['ops_url']}/metrics")).text
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("orders_spans_dropped_total{"))


async def test_lost_telemetry_costs_nothing(traced: Shop, collector: tuple[Receiver, str], capsys: pytest.CaptureFixture[str]) -> None:
    receiver, _ = collector
    client = traced.login("anna-untraced")
    for mode in MODES:
        receiver.mode = mode
        orders = await _place(client)
        await traced.become(orders, "paid")
    ratios: dict[Mode, list[float]] = {"slow": [], "refuse": []}
    for _ in range(ROUNDS):
        spent: dict[Mode, float] = {}
        for mode in random.sample(MODES, len(MODES)):
            receiver.mode = mode
            spent[mode], seen = await _read(client, orders[0]["id"])
            assert seen == {200}, f"{mode}: {seen}"
        for mode, found in ratios.items():
            found.append(spent[mode] / spent["ok"])
    typical = {mode: median(found) for mode, found in ratios.items()}
    with capsys.disabled():
        print(f"\ncollector {', '.join(f'{mode}: {ratio:.2f} of the control' for mode, ratio in typical.items())}, 0 failed")
    assert all(ratio <= NOT_SLOWER for ratio in typical.values()), ratios

    async def counted() -> bool:
        return await _lost(traced) > 0

    await until(counted, "lost spans are counted")


async def test_a_collector_that_is_away_costs_nothing(traced: Shop, collector: tuple[Receiver, str]) -> None:
    receiver, _ = collector
    client, before = traced.login("ben-untraced"), await _lost(traced)
    receiver.stop()
    orders = await _place(client)
    assert (await _read(client, orders[0]["id"]))[1] == {200}

    async def counted() -> bool:
        return await _lost(traced) > before

    await until(counted, "spans without a collector are counted as lost")
    pids = traced.signal("api", signal.SIGTERM)
    await traced.replaced("api", pids)
