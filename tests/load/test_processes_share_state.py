"""Two API processes behind haproxy are one service: keys, limits and cached copies are shared, and one may die."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from loadtests.balanced import Balanced, behind_haproxy
from loadtests.target import Target
from loadtests.watch import Scrape, Watcher
from service.dev.issuer import mint
from service.dev.state import read_stack
from tests.support.servers import free_base_port

pytestmark = pytest.mark.slow
ORDER = {"lines": [{"sku": "SKU-0003", "quantity": 1}], "currency": "EUR"}


@pytest_asyncio.fixture(scope="module")
async def balanced(stack_home: Path) -> AsyncIterator[Balanced]:
    target = Target(read_stack(stack_home)["urls"]["api"], stack_home, profile="load")
    with behind_haproxy(target, 2, first_port=free_base_port()) as found:
        yield found


def headers(home: Path, sub: str, **more: str) -> dict[str, str]:
    token = mint(home, sub=sub, role="customer", issuer=read_stack(home)["urls"]["issuer"])
    return {"authorization": f"Bearer {token}", **{name.replace("_", "-"): value for name, value in more.items()}}


async def counted(http: httpx.AsyncClient, balanced: Balanced, name: str) -> list[float]:
    return [Scrape((await http.get(f"{server.ops_url}/metrics")).text).totals[name] for server in balanced.servers]


async def test_a_key_used_at_one_is_replayed_by_the_other(balanced: Balanced, stack_home: Path) -> None:
    sent = headers(stack_home, "shared-1", idempotency_key=str(uuid4()))
    async with httpx.AsyncClient(timeout=10) as http:
        first, second = [await http.post(f"{server.url}/v1/orders", json=ORDER, headers=sent) for server in balanced.servers]
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["idempotent-replayed"] == "true"
    assert second.content == first.content


async def test_a_copy_cached_by_one_is_a_hit_for_the_other_and_a_cancel_at_one_is_seen_by_the_other(balanced: Balanced, stack_home: Path) -> None:
    one, other = (server.url for server in balanced.servers)
    async with httpx.AsyncClient(timeout=10) as http:
        placed = await http.post(f"{one}/v1/orders", json=ORDER, headers=headers(stack_home, "shared-2", idempotency_key=str(uuid4())))
        path = placed.headers["location"]
        for _ in range(200):  # until the workers are done with it, so that nothing else changes it
            read = await http.get(f"{one}{path}", headers=headers(stack_home, "shared-2"))
            if read.json()["status"] == "paid":
                break
            await asyncio.sleep(0.1)
        assert read.json()["status"] == "paid"
        loads = await counted(http, balanced, "orders_cache_loads_total")
        again = await http.get(f"{other}{path}", headers=headers(stack_home, "shared-2"))
        assert again.json() == read.json()
        assert (await counted(http, balanced, "orders_cache_loads_total"))[1] == loads[1], "the other did not have to load it"
        tag = again.headers["etag"]
        sent = headers(stack_home, "shared-2", idempotency_key=str(uuid4()), if_match=tag)
        cancelled = await http.post(f"{one}{path}/cancel", headers=sent)
        assert cancelled.status_code == 200, cancelled.text
        seen = await http.get(f"{other}{path}", headers=headers(stack_home, "shared-2", if_none_match=tag))
        assert (seen.status_code, seen.json()["status"]) == (200, "cancelled")


async def test_what_one_charges_is_missing_at_the_other(stack_home: Path) -> None:
    """60 lists (2 tokens each) over both processes at once, with the default limits: one bucket's worth passes, not two."""
    target = Target(read_stack(stack_home)["urls"]["api"], stack_home)
    with behind_haproxy(target, 2, first_port=free_base_port(), env={"APP_PROFILE": "default"}) as limited:
        async with httpx.AsyncClient(timeout=10) as http:
            begin = time.monotonic()
            urls = [f"{limited.servers[turn % 2].url}/v1/orders?limit=1" for turn in range(60)]
            answers = await asyncio.gather(*(http.get(url, headers=headers(stack_home, "shared-3")) for url in urls))
            took_s = time.monotonic() - begin
    passed = sum(answer.status_code == 200 for answer in answers)
    assert {answer.status_code for answer in answers} == {200, 429}
    assert 2 * passed <= (20 + 20 * took_s) * 1.02 + 1, f"{passed} of 60 passed in {took_s:.2f} s"


async def test_the_watcher_looks_at_those_who_answer(balanced: Balanced, stack_home: Path) -> None:
    """Not at the stack's own API, which is idle: what its load is told by is the CPU and the metrics of the two."""
    sent, deadline = headers(stack_home, "shared-5"), time.monotonic() + 60
    with Watcher(stack_home, beside=balanced.target.beside) as watcher:
        async with httpx.AsyncClient(timeout=10) as http:
            while not any(sample.get("answered") > 0 for sample in watcher.samples):
                assert time.monotonic() < deadline, f"nothing was seen of what was answered: {watcher.samples}"
                await http.get(f"{balanced.target.api}/v1/products?limit=1", headers=sent)
    last = watcher.samples[-1]
    assert last.get("api_processes") == 2
    assert {"cpu_api", "cpu_haproxy", "cpu_postgres"} <= last.values.keys()


async def test_one_may_die_and_the_balancer_notices(balanced: Balanced, stack_home: Path) -> None:
    """kill -9 of one: reads through the balancer go on at the other, and nobody is sent to the dead one for long."""
    victim = balanced.servers[0]
    sent = headers(stack_home, "shared-4")
    async with httpx.AsyncClient(timeout=10) as http:
        served_before = await counted(http, balanced, "orders_http_requests_total")
        for _ in range(20):
            assert (await http.get(f"{balanced.target.api}/v1/products?limit=1", headers=sent)).status_code == 200
        served = await counted(http, balanced, "orders_http_requests_total")
        assert all(now > before for now, before in zip(served, served_before, strict=True)), "both take part"
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait()
        in_a_row, tries = 0, 0
        while in_a_row < 30:
            tries += 1
            assert tries < 300, "the balancer never settled on the one that lives"
            answer = await http.get(f"{balanced.target.api}/v1/products?limit=1", headers=sent)
            in_a_row = in_a_row + 1 if answer.status_code == 200 else 0
        assert tries <= 33, f"{tries - 30} reads failed before the balancer noticed"
