"""The workers on Apache Kafka, on a stack of real processes: a broker killed, members killed and stopped, outages.

`make test-kafka` (PLUMBLINE_TEST_KAFKA=real) runs it; the other lanes leave it out. PLUMBLINE_TEST_OUTAGE_S makes
the outages longer: by default they are about five times as long as a record's whole life of retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.dev.postgres import EmbeddedPostgres
from service.dev.stack import running_stack
from tests.stories.shop import Shop, open_shop, until
from tests.support.forwarder import Forwarder
from tests.support.servers import free_base_port

pytestmark = pytest.mark.real_kafka  # a lane of its own: `make test-kafka`

SESSION_MS = 6_000
OUTAGE_S = float(os.environ.get("PLUMBLINE_TEST_OUTAGE_S", "8"))
ORDERS, AT_ONCE = 1_000, 24
# Records wait at most 0.5 s in place and 1.08 s in these tiers.
ENVIRONMENT = {"APP_WORKER_TIERS_S": "0.3,0.6", "APP_KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS), "APP_DB_POOL_SIZE": "10"}


@pytest.fixture(scope="module")
def ports() -> int:
    return free_base_port()


@pytest.fixture(scope="module")
def home(ports: int) -> Iterator[Path]:
    environment = ENVIRONMENT | {"APP_PAYMENTS_URL": f"http://127.0.0.1:{ports + 109}"}
    with tempfile.TemporaryDirectory(prefix="plumbline-kafka-", ignore_cleanup_errors=True) as folder:
        # The stack's self-check pays an order before any test's loop runs.
        first_door = subprocess.Popen([sys.executable, "-m", "tests.support.forwarder", str(ports + 109), str(ports + 104)])
        try:
            with running_stack(Path(folder), ports, workers=2, kafka="real", profile="load", env=environment, timeout_s=180):
                first_door.kill()
                first_door.wait()
                yield Path(folder)
        finally:
            first_door.kill()
            first_door.wait()
            EmbeddedPostgres(Path(folder), 0).wipe()


@pytest_asyncio.fixture(scope="module")
async def door(home: Path, ports: int) -> AsyncIterator[Forwarder]:
    forwarder = Forwarder(ports + 109, ports + 104)
    await forwarder.open()
    yield forwarder
    await forwarder.shut()


@pytest_asyncio.fixture(scope="module")
async def shop(home: Path, door: Forwarder) -> AsyncIterator[Shop]:
    async with open_shop(home) as opened:
        yield opened


async def buy(shop: Shop, who: str, count: int, *, quantity: int = 1) -> list[dict[str, Any]]:
    """Place orders, a few at a time; every answer definite."""
    anna, doors = shop.login(who), asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> dict[str, Any]:
        async with doors:
            answer = await shop.definite(lambda: anna.place((f"SKU-{number % 900 + 50:04d}", quantity), key=f"{who}-{number}"))
        assert answer.status_code == 201, answer.text
        return answer.json()  # type: ignore[no-any-return]

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def all_paid(shop: Shop, orders: list[dict[str, Any]], *, timeout_s: float = 90) -> None:
    wanted = [order["id"] for order in orders]

    async def look() -> bool:
        return await shop.database.fetchval("SELECT count(*) FROM orders WHERE status = 'paid' AND id = ANY ($1)", wanted) == len(wanted)

    await until(look, f"{len(wanted)} orders are paid", timeout_s=timeout_s)


async def letters(shop: Shop) -> int:
    return int(await shop.database.fetchval("SELECT count(*) FROM dead_letter"))


async def members(shop: Shop, group: str) -> int:
    root = shop.login("root", role="admin")
    overview = (await shop.definite(lambda: root.get("/admin/overview"))).json()
    return int(((overview["groups"] or {}).get(group) or {}).get("members", 0))


async def test_two_members_share_a_group_and_one_is_killed(shop: Shop) -> None:
    for group in ("inventory", "payments", "payments.retry"):
        await until(lambda group=group: _is(members(shop, group), 2), f"two members of {group}")  # type: ignore[misc]
    buying = asyncio.create_task(buy(shop, "killed-member", 150))
    await until(lambda: _some_paid(shop, "killed-member"), "some are paid")
    os.kill(shop.pids("worker")[0], signal.SIGKILL)
    await all_paid(shop, await buying)
    await shop.holds()


async def test_a_member_stopped_beyond_its_session_wakes_up_to_find_its_work_done(shop: Shop) -> None:
    await shop.replaced("worker", ())
    buying = asyncio.create_task(buy(shop, "stopped-member", 150))
    await until(lambda: _some_paid(shop, "stopped-member"), "some are paid")
    stopped = shop.pids("worker")[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        began = time.monotonic()
        await all_paid(shop, await buying)  # the other member takes over what the stopped one holds
        await asyncio.sleep(max(0.0, 1.5 * SESSION_MS / 1000 - (time.monotonic() - began)))
    finally:
        os.kill(stopped, signal.SIGCONT)
    await all_paid(shop, await buy(shop, "after-the-stop", 60))
    assert stopped in shop.pids("worker"), "it lives on: a lost session is no reason to die"
    await shop.holds()
    assert await letters(shop) == 0


async def test_the_broker_is_killed_and_comes_back_with_everything(shop: Shop) -> None:
    buying = asyncio.create_task(buy(shop, "killed-broker", 150))
    await until(lambda: _some_paid(shop, "killed-broker"), "some are paid")
    shop.signal("kafka", signal.SIGKILL)
    await all_paid(shop, await buying)
    await shop.holds()
    assert await letters(shop) == 0


@pytest.mark.parametrize("what", ["kafka", "postgres", "provider"])
async def test_an_outage_makes_no_dead_letter_and_drains_by_itself(shop: Shop, door: Forwarder, what: str) -> None:
    """W5. Kafka is stopped (a black hole), PostgreSQL too, the provider refuses connections."""
    placed = await buy(shop, f"before-{what}", 40)
    async with outage(shop, door, what):
        buying = asyncio.create_task(buy(shop, f"during-{what}", 40))
        await asyncio.sleep(OUTAGE_S)
    healed = time.monotonic()
    await all_paid(shop, placed + await buying)
    print(f"{what} away for {OUTAGE_S:g} s: 0 of {len(placed) + 40} orders parked, all paid {time.monotonic() - healed:.1f} s after it was back")
    assert await letters(shop) == 0
    await shop.holds()


@contextlib.asynccontextmanager
async def outage(shop: Shop, door: Forwarder, what: str) -> AsyncIterator[None]:
    if what == "provider":
        await door.shut()
        yield
        await door.open()
        return
    pids = shop.pids(what) if what == "kafka" else _family(shop.pids(what)[0])
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def test_one_failing_order_among_a_thousand_delays_nobody(shop: Shop, home: Path) -> None:
    """W4: the others are done within twice the clean time; the failing one is parked, healed, replayed, charged once.

    Half of the clean time is taken before and half after, so that a host that gets busier or idler counts on both sides.
    """
    clean_s = await _time(shop, "clean-before", ORDERS // 2)
    anna = shop.login("hopeless")
    hopeless = (await shop.definite(lambda: anna.place(("SKU-0001", 83), key="hopeless"))).json()
    assert hopeless["total_minor"] % 100 == 17
    failing_s = await _time(shop, "beside", ORDERS)
    row = await until(lambda: shop.database.fetchrow("SELECT * FROM dead_letter WHERE aggregate_id = $1", hopeless["id"]), "it is parked")
    clean_s += await _time(shop, "clean-after", ORDERS // 2)
    print(f"{ORDERS} orders alone {clean_s:.1f} s, beside a failing one {failing_s:.1f} s: {failing_s / clean_s:.2f} ×")
    assert failing_s <= 2 * clean_s
    assert (row["consumer"], row["error_class"], row["status"]) == ("payments", "ProviderError", "open")
    assert {"x-attempt", "x-first-failure-ms", "x-origin-topic", "ce_id"} <= set(row["headers"])
    await shop.dial(heal=True)
    replay = [sys.executable, "-m", "service", "dlq", "replay", str(row["id"])]
    done = await asyncio.to_thread(subprocess.run, replay, env=os.environ | {"DATABASE_URL": shop.urls["database"]}, capture_output=True, text=True)
    assert "replayed: 1" in done.stdout, done.stdout + done.stderr
    assert await shop.becomes(hopeless, "paid") == "paid"
    assert [entry["state"] for entry in shop.decisions(hopeless)] == ["captured"]
    await shop.holds()


async def _time(shop: Shop, who: str, count: int) -> float:
    begun = time.monotonic()
    await all_paid(shop, await buy(shop, who, count), timeout_s=300)
    return time.monotonic() - begun


async def _some_paid(shop: Shop, who: str) -> bool:
    return await shop.database.fetchval("SELECT count(*) FROM orders WHERE status = 'paid' AND customer_id = $1", who) >= 10  # type: ignore[no-any-return]


async def _is(question: Any, answer: object) -> bool:
    return bool(await question == answer)


def _family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]
