"""The floors: what the work costs without a framework and without any of the service's promises.

Raw ASGI on the service's own server settings (uvicorn, uvloop, httptools), asyncpg connections handed out by hand
(no pool, no reset), a Redis reader of 30 lines. No token, no limits, no log, no trace. Paths: `/w0` POST,
`/p1/<id>`, `/g1/<id>`, `/list/<customer>`. Run by `bench/servers.py`; environment DATABASE_URL, REDIS_URL, HTTP_PORT.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import hiredis
import orjson
import uuid_utils.compat as uuid_utils
import uvicorn

from bench.floor_sql import LIST_ORDERS, PLACE_ORDER, READ_ORDER

_CONNECTIONS: Final = 10  # as many as one API process of the service opens
_SETTINGS: Final = {"plan_cache_mode": "force_generic_plan", "random_page_cost": "1.1", "jit": "off"}

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Connections:
    """A free list: the cheapest pool there is."""

    def __init__(self) -> None:
        self._free: list[Any] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()

    async def open(self, url: str) -> None:
        for _ in range(_CONNECTIONS):
            connection = await asyncpg.connect(url, server_settings=_SETTINGS, ssl=False)
            await connection.set_type_codec("json", schema="pg_catalog", encoder=orjson.dumps, decoder=orjson.loads)
            self._free.append(connection)

    async def take(self) -> Any:
        if self._free:
            return self._free.pop()
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        return await waiter

    def give(self, connection: Any) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(connection)
        else:
            self._free.append(connection)


class Redis(asyncio.Protocol):
    """One connection, pipelined: answers come in the order of the questions."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while self._waiting and (answer := self._reader.gets()) is not False:
            self._waiting.popleft().set_result(answer)

    def get(self, key: bytes) -> asyncio.Future[Any]:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._transport.write(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key))
        return waiter


class Floors:
    """The ASGI application."""

    def __init__(self) -> None:
        self._connections = Connections()
        self._redis: Any = None
        self._prices: dict[str, int] = {}

    async def open(self) -> None:
        await self._connections.open(os.environ["DATABASE_URL"])
        connection = await self._connections.take()
        self._prices = {row["sku"]: row["price_minor"] for row in await connection.fetch("SELECT sku, price_minor FROM product")}
        self._connections.give(connection)
        address = urlsplit(os.environ["REDIS_URL"])
        _, self._redis = await asyncio.get_running_loop().create_connection(Redis, address.hostname or "", address.port or 6379)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        _, kind, *rest = scope["path"].split("/")
        if kind == "w0":
            await self._place(receive, send)
        elif kind == "p1":
            await self._read(UUID(rest[0]), send)
        elif kind == "g1":
            await _answer(send, 200, await self._redis.get(b"bench:" + rest[0].encode()))
        else:
            await self._list(rest[0], send)

    async def _place(self, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        lines = orjson.loads(body)["lines"]
        skus, quantities = [line["sku"] for line in lines], [line["quantity"] for line in lines]
        prices = [self._prices[sku] for sku in skus]
        total = sum(price * quantity for price, quantity in zip(prices, quantities, strict=True))
        order_id, event_id = uuid_utils.uuid7(), uuid_utils.uuid7()
        answer = orjson.dumps({"id": order_id, "customer_id": "floor", "status": "placed", "version": 1, "total_minor": total, "lines": lines})
        payload = orjson.dumps({"order_id": order_id, "customer_id": "floor", "total_minor": total, "currency": "EUR", "lines": lines})
        connection = await self._connections.take()
        try:
            values = ("floor", str(event_id), hashlib.sha256(body).digest(), answer, order_id, total, skus, quantities, prices, event_id, payload)
            outcome = await connection.fetchval(PLACE_ORDER, *values)
        finally:
            self._connections.give(connection)
        await _answer(send, 201 if outcome == "created" else 409, answer)

    async def _read(self, order_id: UUID, send: Send) -> None:
        connection = await self._connections.take()
        try:
            row = await connection.fetchrow(READ_ORDER, order_id)
        finally:
            self._connections.give(connection)
        await _answer(send, 200, orjson.dumps({**row, "id": str(row["id"])}))

    async def _list(self, customer_id: str, send: Send) -> None:
        connection = await self._connections.take()
        try:
            rows = await connection.fetch(LIST_ORDERS, customer_id, 21)
        finally:
            self._connections.give(connection)
        items = [{**row, "id": str(row["id"])} for row in rows[:20]]
        await _answer(send, 200, orjson.dumps({"items": items, "next_cursor": items[-1]["id"]}))


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def main() -> None:
    """Serve until killed."""
    floors = Floors()
    await floors.open()
    config = uvicorn.Config(
        floors, port=int(os.environ["HTTP_PORT"]), loop="uvloop", http="httptools", lifespan="off", log_config=None, access_log=False,
        server_header=False, date_header=False, proxy_headers=False, backlog=2048,
    )  # fmt: skip
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
