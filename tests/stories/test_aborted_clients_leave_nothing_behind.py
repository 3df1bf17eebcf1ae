"""Clients that vanish at any moment of a request: no database session, slot or single-flight is left behind (H4).

Raw sockets, reset instead of closed, so that the server finds out as late as it can.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import struct
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from service.dev.issuer import mint
from tests.stories.shop import Shop, until

pytestmark = pytest.mark.alone  # a hundred at once, two thousand in all

AT_ONCE, KEYS = 100, 40
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends a reset
_SESSIONS = "SELECT state, xact_start IS NOT NULL AS in_transaction FROM pg_stat_activity WHERE application_name = 'orders-api'"


class Vanishing:
    """Sends one of several requests and is gone before, during or right after the answer."""

    def __init__(self, shop: Shop, seed: int) -> None:
        self.shop, self.luck = shop, random.Random(seed)
        self.customer = f"vanishing-{uuid4().hex[:8]}"
        self.token = mint(shop.home, sub=self.customer, role="customer", issuer=shop.urls["issuer"])
        self.keys = [str(uuid4()) for _ in range(KEYS)]
        self.address = urlsplit(shop.urls["api"])
        self.aborted = 0

    async def vanish(self) -> None:
        _, writer = await asyncio.open_connection(self.address.hostname, self.address.port)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        data = self._request()
        writer.write(data[: self.luck.choice((len(data), len(data), len(data), self.luck.randrange(1, len(data))))])
        await asyncio.sleep(self.luck.choice((0, 0.001, 0.003, 0.01, 0.03)))
        writer.transport.abort()
        self.aborted += 1

    def _request(self) -> bytes:
        head = f"Host: {self.address.netloc}\r\nAuthorization: Bearer {self.token}\r\n"
        match self.luck.randrange(4):
            case 0:
                key, body = self.luck.choice(self.keys), _body()
                head += f"Idempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                return f"POST /v1/orders HTTP/1.1\r\n{head}\r\n{body}".encode()
            case 1:
                return f"GET /v1/orders?limit=20 HTTP/1.1\r\n{head}\r\n".encode()
            case 2:  # few products, mostly not cached yet: many vanish while they share one load
                return f"GET /v1/products/SKU-{self.luck.randrange(900, 1_000):04d} HTTP/1.1\r\n{head}\r\n".encode()
            case _:
                return f"GET /v1/orders/{uuid4()} HTTP/1.1\r\n{head}\r\n".encode()


def _body() -> str:
    return json.dumps({"lines": [{"sku": "SKU-0006", "quantity": 1}], "currency": "EUR"})


async def _gauges(shop: Shop) -> list[tuple[str, float]]:
    """What the API processes say they hold: slots, connections handed out, requests in hand."""
    pattern = re.compile(r"^(orders_(?:admission_in_flight|db_pool_in_use|db_pool_size|http_in_flight)) (\S+)$", re.MULTILINE)
    return [(name, float(value)) for page in await shop.metrics("api") for name, value in pattern.findall(page)]


@pytest.mark.parametrize("clients", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_aborted_clients_leave_nothing_behind(shop: Shop, clients: int) -> None:
    # Connections are opened when they are needed, so the baseline is what the pools may hold.
    baseline = sum(value for name, value in await _gauges(shop) if name == "orders_db_pool_size")
    assert len(await _gauges(shop)) == 8, "two processes, four gauges each"
    crowd, turns = Vanishing(shop, seed=clients), asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with turns:
            await crowd.vanish()

    await asyncio.gather(*(one() for _ in range(clients)))
    assert crowd.aborted == clients

    held: list[str] = []

    async def at_rest() -> bool:
        rows = await shop.database.fetch(_SESSIONS)
        held[:] = [f"{name} {value:g}" for name, value in await _gauges(shop) if value and name != "orders_db_pool_size"]
        held.extend("a session in a transaction" for row in rows if row["in_transaction"])
        return not held and len(rows) <= baseline

    try:
        await until(at_rest, f"slots and sessions are back where they were ({baseline:g} sessions)")
    except AssertionError as error:
        raise AssertionError(f"{error}; held: {held}") from None
    await _everything_still_works(shop, crowd)
    await shop.holds()


async def _everything_still_works(shop: Shop, crowd: Vanishing) -> None:
    """Each key can be asked again and has one order; each product that was being loaded is served."""
    headers = {"authorization": f"Bearer {crowd.token}", "content-type": "application/json"}
    placed: list[dict[str, Any]] = []
    for key in crowd.keys:
        send = lambda key=key: shop.http.post("/v1/orders", content=_body(), headers=headers | {"idempotency-key": key})  # noqa: E731
        answer: httpx.Response = await shop.definite(send)
        assert answer.status_code == 201, answer.text
        placed.append(answer.json())
    rows = await shop.database.fetch("SELECT id::text FROM orders WHERE customer_id = $1", crowd.customer)
    assert {row["id"] for row in rows} == {order["id"] for order in placed}, "as many orders as keys, the ones answered"
    assert len(placed) == KEYS
    for number in range(900, 1_000):
        for _ in range(2):  # each process may have had a load of its own
            assert (await shop.http.get(f"/v1/products/SKU-{number:04d}", headers=headers)).status_code == 200
    await shop.become(placed, "paid")
