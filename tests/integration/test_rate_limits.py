"""L1–L5 on real processes: 8 clients, 2 API processes, one Redis of their own that is watched and killed.

Times are Redis' own: a bucket's value and time to live say when each charge was made, to the millisecond.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from service.dev.issuer import mint
from service.dev.redis import EmbeddedRedis
from service.settings import Settings
from service.web.auth import SCOPES
from service.web.ratelimit import Limiter
from tests.integration.processes import running_apis
from tests.integration.waiting import until
from tests.support.access import expected, routes
from tests.support.servers import Servers

CLIENTS, APIS, SLACK = 8, 2, 1.02
BREAKS = 24  # calls at once that let a breaker judge (20 within 10 s)
POLICIES = {"burst": (10, 1.0), "sustained": (40, 8.0)}


@dataclass
class World:
    """Two APIs with small quotas, and their Redis."""

    urls: list[str]
    redis: EmbeddedRedis
    home: Path

    def token(self, sub: str) -> str:
        return mint(self.home, sub=sub, role="customer")

    def metric(self, name: str) -> list[float]:
        """The value in each API process; 0 before it was ever counted."""
        pages = [httpx.get(f"http://127.0.0.1:{httpx.URL(url).port + APIS}/metrics").text for url in self.urls]
        return [float(found[1]) if (found := re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)) else 0.0 for page in pages]


@pytest.fixture(scope="module")
def world(servers: Servers, db: Any) -> Iterator[World]:
    redis = EmbeddedRedis(servers.home / "limits", servers.base_port + 109)
    redis.start()
    policies = ",".join(f"{name}={quota}/{window_s:g}" for name, (quota, window_s) in POLICIES.items())
    over = {"APP_PROFILE": "default", "APP_LIMIT_POLICIES": policies, "APP_LIMIT_ADDRESS": "address=100000/1", "APP_REPLICAS": str(APIS)}
    over["APP_REDIS_TIMEOUT_MS"] = "1500"  # a busy machine is no outage: 50 ms would make some charges local ones
    try:
        with running_apis(servers, APIS, REDIS_URL=redis.url, **over) as urls:
            yield World(urls, redis, servers.home)
    finally:
        redis.stop()


@dataclass
class Charges:
    """What MONITOR shows of the buckets while the block runs: every charge that was admitted, by policy."""

    port: int
    # policy → (moment on Redis' clock in s, cost, time to live in ms)
    seen: dict[str, list[tuple[float, int, int]]] = field(default_factory=lambda: defaultdict(list))

    def __enter__(self) -> Self:
        self._socket = socket.create_connection(("127.0.0.1", self.port))
        self._socket.sendall(b"MONITOR\r\n")
        self._lines = self._socket.makefile("r", encoding="utf-8", errors="replace")
        assert self._lines.readline().startswith("+OK")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=30)
        self._socket.close()

    def _read(self) -> None:
        cost = 0
        with contextlib.suppress(OSError):
            for line in self._lines:
                words = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
                if words[:1] == ["EVALSHA"] and words[3].startswith("rl:"):
                    cost = int(words[3 + int(words[2])])
                elif " lua]" in line and words[:1] == ["SET"] and words[1].startswith("rl:"):
                    tat_s, ttl_ms = int(words[2]) / 1e6, int(words[4])
                    self.seen[words[1].rpartition(":")[2]].append((tat_s - (ttl_ms - 1_000) / 1e3, cost, ttl_ms))


def run_clients(tasks: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Each task in a process of its own, all at once; their answers."""
    command = [sys.executable, "-m", "tests.integration.limit_client"]
    clients = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in tasks]
    outputs: list[str] = [""] * len(tasks)

    def feed(number: int) -> None:
        outputs[number] = clients[number].communicate(json.dumps(tasks[number]), timeout=240)[0]

    threads = [threading.Thread(target=feed, args=(number,)) for number in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [client.returncode for client in clients] == [0] * len(clients)
    return [[json.loads(line) for line in output.splitlines()] for output in outputs]


async def test_l1_l3_eight_clients_and_two_processes_share_one_quota(world: World) -> None:
    token = world.token(f"greedy-{uuid4()}")
    with Charges(world.redis.port) as charges:
        answers = await asyncio.to_thread(run_clients, [{"urls": world.urls, "token": token, "requests": 40, "pace": False}] * CLIENTS)
    statuses = [answer["status"] for client in answers for answer in client]
    assert set(statuses) == {200, 429}, "the quota was never reached, or something else was answered"
    paid = sum(answer["cost"] for client in answers for answer in client if answer["status"] == 200)
    assert paid >= POLICIES["burst"][0], "not even the burst was admitted"
    for name, (quota, window_s) in POLICIES.items():
        seen = sorted(charges.seen[name])
        assert sum(cost for _, cost, _ in seen) == paid, "a charge a 200, and none for a 429"
        for first in range(len(seen)):
            admitted = 0
            for moment, cost, _ in seen[first:]:
                admitted += cost
                bound = quota + quota * (moment - seen[first][0]) / window_s
                assert admitted <= bound * SLACK, (name, admitted, bound)
        assert all(0 < ttl_ms <= window_s * 1_000 + 1_000 for _, _, ttl_ms in seen), name
    print(f"\nL1: {len(statuses)} requests, {statuses.count(200)} admitted ({paid} tokens), {statuses.count(429)} refused")


async def test_l4_clients_that_pace_by_the_headers_are_never_refused(world: World) -> None:
    tasks = [{"urls": world.urls, "token": world.token(f"patient-{n}-{uuid4()}"), "requests": 24, "pace": True} for n in range(CLIENTS)]
    answers = await asyncio.to_thread(run_clients, tasks)
    refused = [(number, answer, client[number - 1]) for client in answers for number, answer in enumerate(client) if answer["status"] != 200]
    assert refused == []
    assert all(re.fullmatch(r'"burst";r=\d+;t=\d+, "sustained";r=\d+;t=\d+', answer["ratelimit"]) for client in answers for answer in client)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_l5_without_redis_nobody_pays_for_it(world: World, how: signal.Signals) -> None:
    headers = {"authorization": f"Bearer {world.token(f'loyal-{uuid4()}')}"}
    body = {"lines": [{"sku": "SKU-0001", "quantity": 1}], "currency": "EUR"}
    statuses: list[int] = []
    async with httpx.AsyncClient(timeout=30) as client:

        async def ask(url: str) -> httpx.Response:
            read = await client.get(f"{url}/v1/products/SKU-0001", headers=headers)
            sold = await client.post(f"{url}/v1/orders", json=body, headers=headers | {"idempotency-key": str(uuid4())})
            statuses.extend((read.status_code, sold.status_code))
            return read

        async def opened() -> bool:
            await asyncio.gather(*(ask(url) for url in world.urls for _ in range(BREAKS)))
            return world.metric('orders_breaker_state{dependency="redis"}') == [2.0] * APIS

        async def shared_again() -> bool:
            answers = [await ask(url) for url in world.urls]
            return not any("degraded" in answer.headers["ratelimit"] for answer in answers)

        await until(shared_again, "Redis counts", deadline_s=60)
        os.kill(world.redis.running().pid, how)
        try:
            await until(opened, "both breakers are open", deadline_s=60)
            before = world.metric("orders_redis_errors_total")
            assert min(before) >= 1
            for _ in range(10):
                for answer in await asyncio.gather(*(ask(url) for url in world.urls)):
                    # burst 10 ÷ 2 processes, and never less than the largest cost
                    assert answer.headers["ratelimit-policy"] == '"burst";q=5;w=1, "sustained";q=20;w=8'
                    assert answer.headers["ratelimit"].count(";degraded") == 2
            assert world.metric("orders_redis_errors_total") == before, "requests begun after the breakers opened made no call"
        finally:
            if how == signal.SIGSTOP:
                os.kill(world.redis.running().pid, signal.SIGCONT)
            else:
                world.redis.running().wait()
                world.redis.start()
        await until(shared_again, "Redis counts again", deadline_s=60)
    assert set(statuses) <= {200, 201, 429}, "never a 5xx"
    assert {200, 201} <= set(statuses)


async def test_l2_limiter_and_cache_are_one_round_trip(app: FastAPI, login: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    anna, redis = login(f"hot-{uuid4()}"), app.state.resources.redis
    order = (await anna.place()).json()
    hot = {
        "product": lambda: anna.get("/products/SKU-0001"),
        "order": lambda: anna.get(f"/orders/{order['id']}"),
        "create": anna.place,
        "create of two": lambda: anna.place(("SKU-0001", 1), ("SKU-0003", 1)),
        "refused": lambda: anna.place(("SKU-0001", 0)),
    }
    for send in hot.values():
        await send()  # warm: the script is loaded, the objects are cached
    trips: list[str] = []
    pipeline, call = redis.pipeline, redis.call
    monkeypatch.setattr(redis, "pipeline", lambda commands: (trips.append("pipeline"), pipeline(commands))[1])
    monkeypatch.setattr(redis, "call", lambda work: (trips.append("call"), call(work))[1])
    for name, send in hot.items():
        trips.clear()
        answer = await send()
        assert answer.status_code in (200, 201, 422), (name, answer.text)
        assert trips == ["pipeline"], name


@pytest.fixture
def counting(app: FastAPI, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota that does not refill while a test looks: a million over thirty years."""
    limit = settings.limit.model_copy(update={"policies": ("wide=1000000/1000000000",), "role_factors": ("operator=5", "admin=2")})
    counted = settings.model_copy(update={"limit": limit, "app": settings.app.model_copy(update={"profile": "default"})})
    resources = app.state.resources
    monkeypatch.setattr(resources, "limiter", Limiter(counted, resources.redis, resources.cache))


def left(answer: httpx.Response) -> int:
    found = re.fullmatch(r'"wide";r=(\d+);t=\d+', answer.headers["ratelimit"])
    assert found, answer.headers["ratelimit"]
    return int(found[1])


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("role", sorted(SCOPES))
async def test_every_route_costs_what_is_promised_whatever_it_answers(http: httpx.AsyncClient, login: Any, role: str) -> None:
    """read 1, list 2, write 5; a refused input costs the same; what the token does not allow costs nothing."""
    sub, factor = f"{role}-{uuid4()}", {"operator": 5, "admin": 2}.get(role, 1)
    caller, spent = login(sub, role=role), 0
    for method, route in routes():
        path = route.path.format(order_id=uuid4(), sku="NOBODY", letter_id=uuid4())
        headers = caller.headers | {"idempotency-key": str(uuid4()), "if-match": '"1.1"', "content-type": "application/json"}
        answer = await http.request(method, path, headers=headers, content=b"" if method == "GET" else b'{"unknown":1}')
        if expected(method, route, role) == "403":
            assert answer.status_code == 403
            assert "ratelimit" not in answer.headers
            continue
        spent += 5 if method != "GET" else 2 if route._query is not None and "limit" in route._query.model_fields else 1
        assert answer.status_code in (200, 404, 422), answer.text
        assert left(answer) == 1_000_000 * factor - spent, (method, route.path)
        assert answer.headers["ratelimit-policy"] == f'"wide";q={1_000_000 * factor};w=1e+09'
    assert spent > 5


async def test_a_refusal_says_what_to_do_and_takes_nothing(app: FastAPI, settings: Settings, login: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = settings.limit.model_copy(update={"policies": ("few=6/1000000", "many=1000/1000000"), "role_factors": ()})
    small = settings.model_copy(update={"limit": limit, "app": settings.app.model_copy(update={"profile": "default"})})
    resources = app.state.resources
    monkeypatch.setattr(resources, "limiter", Limiter(small, resources.redis, resources.cache))
    anna = login(f"small-{uuid4()}")
    assert (await anna.place()).status_code == 201
    for _ in range(3):
        denied = await anna.place()
        assert (denied.status_code, denied.json()["code"], denied.json()["violated-policies"]) == (429, "quota-exceeded", ["few"])
        assert denied.headers["cache-control"] == "no-store"
        found = re.fullmatch(r'"few";r=1;t=(\d+), "many";r=995;t=\d+', denied.headers["ratelimit"])
        assert found, denied.headers["ratelimit"]
        needed_s = int(found[1])
        assert needed_s <= int(denied.headers["retry-after"]) <= needed_s * 1.1 + 1, "at most a tenth later"
    assert (await anna.get("/products/SKU-0001")).status_code == 200, "what is left is still there"
