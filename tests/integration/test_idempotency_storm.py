"""The storm: 4 client processes, 2 API processes, 1,000 requests over 50 keys, 64 in flight; 50 orders come of it."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from service.dev.issuer import mint
from tests.integration.facts import Facts
from tests.integration.processes import running_apis
from tests.integration.waiting import blocked_backends, holding, until
from tests.support.servers import Servers

CLIENTS, KEYS, REQUESTS, IN_FLIGHT = 4, 50, 1_000, 64


@pytest.fixture(scope="module")
def apis(servers: Servers, db: Any) -> Iterator[list[str]]:
    """Two API processes on the session's servers."""
    with running_apis(servers, 2) as urls:
        yield urls


def _run_clients(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.integration.storm_client"]
    clients = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in tasks]
    for client, task in zip(clients, tasks, strict=True):
        assert client.stdin is not None
        client.stdin.write(json.dumps(task))
        client.stdin.close()
        client.stdin = None
    outputs = [client.communicate(timeout=120)[0] for client in clients]
    assert [client.returncode for client in clients] == [0] * len(clients)
    return [json.loads(line) for output in outputs for line in output.splitlines()]


async def test_a_thousand_requests_over_50_keys_make_50_orders(apis: list[str], servers: Servers, facts: Facts) -> None:
    customer = f"storm-{uuid4()}"
    keys = random.Random(3).sample([f"{customer}-{n}" for n in range(KEYS)] * (REQUESTS // KEYS), REQUESTS)
    token = mint(servers.home, sub=customer, role="customer")
    tasks = [{"urls": apis, "token": token, "keys": keys[n::CLIENTS], "in_flight": IN_FLIGHT // CLIENTS} for n in range(CLIENTS)]
    answers = await asyncio.to_thread(_run_clients, tasks)

    assert len(answers) == REQUESTS
    statuses = {status for answer in answers for status in answer["seen"]}
    assert statuses <= {201, 408, 409, 429, 503}, "never a 500, never a cut connection"
    assert {answer["seen"][-1] for answer in answers} == {201}
    for key in set(keys):
        assert len({answer["digest"] for answer in answers if answer["key"] == key}) == 1, "I4: replays are byte-identical"
    firsts = [answer for answer in answers if not answer["replayed"]]
    assert len(firsts) <= KEYS
    distinct = {answer["digest"]: httpx.Response(201, content=answer["body"].encode()) for answer in answers}
    assert len(distinct) == KEYS
    await facts.assert_orders_are(customer, distinct.values())


async def test_a_client_that_goes_away_does_not_undo_its_write(apis: list[str], servers: Servers, facts: Facts) -> None:
    customer, key, sku = f"gone-{uuid4()}", str(uuid4()), await facts.add_product()
    token, body = mint(servers.home, sub=customer, role="customer"), json.dumps({"lines": [{"sku": sku, "quantity": 1}], "currency": "EUR"})
    host = urlsplit(apis[0])
    head = (
        f"POST /v1/orders HTTP/1.1\r\nHost: {host.netloc}\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with holding(facts, "SELECT FROM product WHERE sku = $1 FOR UPDATE", sku) as blocker:
        _, writer = await asyncio.open_connection(host.hostname, host.port)
        writer.write((head + body).encode())
        await until(lambda: blocked_backends(facts, blocker), "the create waits for the product row")
        writer.transport.abort()
    await until(lambda: facts.rows("SELECT FROM orders WHERE customer_id = $1", customer), "the order is committed though nobody listens")
    headers = {"authorization": f"Bearer {token}", "idempotency-key": key, "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=apis[1]) as other:
        again = await other.post("/v1/orders", content=body, headers=headers)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    await facts.assert_orders_are(customer, [again])
