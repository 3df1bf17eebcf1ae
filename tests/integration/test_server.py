"""Below HTTP, on raw sockets: what a client library would never send, and what must not keep the server busy."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI

from service.foundation.lifecycle import Lifecycle
from service.settings import HttpSettings
from service.web.server import serve_api

_DEADLINE_S = 15.0


@dataclass(slots=True)
class Wire:
    """A raw connection to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> bytes:
        """Everything until the server closes (a reset counts as closed)."""
        parts = []
        try:
            async with asyncio.timeout(_DEADLINE_S):
                while chunk := await self.reader.read(65_536):
                    parts.append(chunk)
        except ConnectionError:
            pass
        return b"".join(parts)


@asynccontextmanager
async def serving(app: FastAPI, settings: HttpSettings) -> AsyncIterator[tuple[str, int]]:
    """The application behind the real server; the drain at the end must cut nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()[:2]
    lifecycle = Lifecycle()

    async def without_lifespan(scope: Any, receive: Any, send: Any) -> None:  # the fixture's application has begun already
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await app(scope, receive, send)

    task = asyncio.create_task(serve_api(without_lifespan, settings, lifecycle, fd=os.dup(listener.fileno())))
    listener.close()
    yield host, port
    lifecycle.stop()
    assert await task, "the drain cut a request"


@pytest_asyncio.fixture(scope="module")
async def address(app: FastAPI) -> AsyncIterator[tuple[str, int]]:
    async with serving(app, HttpSettings(receive_deadline_ms=700, drain_wait_s=0, drain_timeout_s=2)) as found:
        yield found


async def _connect(address: tuple[str, int]) -> Wire:
    return Wire(*await asyncio.open_connection(*address))


_ATTACKS = {
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "malformed-request"),
    "no host": (b"GET /v1/orders HTTP/1.1\r\nConnection: close\r\n\r\n", 400, "malformed-request"),
    "two hosts": (b"GET /v1/orders HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400, "malformed-request"),
    "evil host": (b"GET /v1/orders HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n", 400, "unknown-host"),
    "evil host and a trailing slash": (b"GET /v1/orders/ HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n", 400, "unknown-host"),
    "two content lengths": (
        b"POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, "malformed-request"),
    "length and chunked": (
        b"POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "malformed-request"),
    "negative length": (b"POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400, "malformed-request"),
    "unknown method": (b"BREW /v1/orders HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "malformed-request"),
    "trace": (b"TRACE /v1/orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405, "method-not-allowed"),
    "long uri": (b"GET /v1/orders?" + b"a" * 5_000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 414, "uri-too-long"),
    "100 KB uri, never finished": (b"GET /" + b"a" * 100_000, 414, "uri-too-long"),
    "70 KB header": (b"GET /v1/orders HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000, 431, "headers-too-large"),
    "10,000 headers": (
        b"GET /v1/orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + b"A: b\r\n" * 10_000 + b"\r\n", 431, "headers-too-large"),
    "slow headers": (b"GET /v1/orders HTTP/1.1\r\nHost: local", 408, "request-timeout"),
    "no token before the body": (
        b"POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\n{", 401, "unauthenticated"),
}  # fmt: skip


@pytest.mark.parametrize("name", _ATTACKS)
async def test_what_no_client_library_sends_gets_a_problem(address: tuple[str, int], name: str) -> None:
    request, status, code = _ATTACKS[name]
    wire = await _connect(address)
    await wire.send(request)
    answer = await wire.answer()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:300]
    assert f'"code":"{code}"'.encode() in answer
    assert b"application/problem+json" in answer


async def test_half_open_requests_are_closed_and_others_are_served(address: tuple[str, int]) -> None:
    half_open = [await _connect(address) for _ in range(500)]
    for wire in half_open[::2]:
        await wire.send(b"POST /v1/orders HTTP/1.1\r\nHost: loc")
    served = await _connect(address)
    await served.send(b"GET /v1/orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await served.answer()).startswith(b"HTTP/1.1 401 ")
    answers = await asyncio.gather(*(wire.answer() for wire in half_open))
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 408", b""}


async def test_connections_beyond_the_cap_are_refused(app: FastAPI) -> None:
    async with serving(app, HttpSettings(connections=10, drain_wait_s=0, drain_timeout_s=2)) as address:
        held = [await _connect(address) for _ in range(10)]
        extra = await _connect(address)
        assert (await extra.answer()).startswith(b"HTTP/1.1 503 ")
        for wire in held:
            wire.writer.close()


async def test_pipelined_requests_are_all_answered_in_order(address: tuple[str, int]) -> None:
    wire = await _connect(address)
    await wire.send(b"GET /v1/orders HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200 + b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await wire.answer()
    assert (answer.count(b"HTTP/1.1 401 "), answer.count(b"HTTP/1.1 404 ")) == (200, 1)
