"""Below HTTP, on raw sockets: what a client library would never send, and what must not keep the server busy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI

from service.dev.issuer import mint
from service.foundation.lifecycle import Lifecycle
from service.settings import HttpSettings, Settings
from service.web import server
from service.web.server import serve_api
from tests.integration.facts import Facts

_DEADLINE_S = 15.0


@pytest.fixture(autouse=True)
async def nothing_written(facts: Facts) -> Any:
    """I3, for every test of this file: a refused request leaves no row anywhere."""
    before = await facts.counts()
    yield
    assert await facts.counts() == before


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


def _get(target: str, *lines: str, version: str = "HTTP/1.1", host: str = "Host: localhost") -> bytes:
    return "\r\n".join([f"GET {target} {version}", host, "Connection: close", *lines, "", ""]).encode("latin-1")


def _post(*lines: str, body: str = "", token: bool = True) -> bytes:
    """A create that is good except for `lines` and `body`; `TOKEN` becomes a customer's."""
    good = ["Host: localhost", "Connection: close", "Content-Type: application/json", *(["Authorization: Bearer TOKEN"] if token else [])]
    return "\r\n".join(["POST /v1/orders HTTP/1.1", *good, *lines, "", body]).encode("latin-1")


_CHUNKED, _KEY = "Transfer-Encoding: chunked", "Idempotency-Key: k"
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
    # Whatever two readers could understand differently.
    "absolute URI of another host": (_get("http://evil.test/v1/orders"), 401, "unauthenticated"),
    "path that looks like a host": (_get("//evil.test/v1/orders"), 404, "not-found"),
    "dots in the path": (_get("/%2e%2e/%2e%2e/etc/passwd"), 404, "not-found"),
    "line end in the path": (_get("/v1/orders%0a"), 404, "not-found"),
    "raw bytes in the path": (_get("/v1/orders/\xff\xfe"), 400, "malformed-request"),
    "no slash": (_get("v1/orders"), 400, "malformed-request"),
    "CONNECT": (b"CONNECT evil.test:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "malformed-request"),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404, "not-found"),
    "HTTP/0.9": (b"GET /v1/orders\r\n\r\n", 400, "malformed-request"),
    "HTTP/3.7": (_get("/v1/orders", version="HTTP/3.7"), 400, "malformed-request"),
    "HTTP/2 at once": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed-request"),
    "upgrade to h2c": (_get("/v1/orders", "Connection: Upgrade, close", "Upgrade: h2c"), 401, "unauthenticated"),
    "upgrade to websocket": (_get("/v1/orders", "Connection: Upgrade, close", "Upgrade: websocket"), 401, "unauthenticated"),
    "blank before a colon": (_get("/v1/orders", host="Host : localhost"), 400, "malformed-request"),
    "folded header": (_get("/v1/orders", "X: a\r\n b"), 400, "malformed-request"),
    "bare LF": (b"GET /v1/orders HTTP/1.1\nHost: localhost\nConnection: close\n\n", 400, "malformed-request"),
    "bare CR": (_get("/v1/orders", "X: a\rY: b"), 400, "malformed-request"),
    "NUL in a header": (_get("/v1/orders", "X: a\0b"), 400, "malformed-request"),
    "NUL in a name": (_get("/v1/orders", "X\0Y: a"), 400, "malformed-request"),
    "header without a name": (_get("/v1/orders", ": a"), 400, "malformed-request"),
    "host with a false port": (_get("/v1/orders", host="Host: localhost:evil.test"), 400, "unknown-host"),
    "host with a path": (_get("/v1/orders", host="Host: localhost:/v1"), 400, "unknown-host"),
    "host with a user": (_get("/v1/orders", host="Host: localhost@evil.test"), 400, "unknown-host"),
    "length +2": (_post("Content-Length: +2", body="{}"), 400, "malformed-request"),
    "length in hex": (_post("Content-Length: 0x2", body="{}"), 400, "malformed-request"),
    "length as a list": (_post("Content-Length: 2, 2", body="{}"), 400, "malformed-request"),
    "length 2^64": (_post("Content-Length: 18446744073709551616", body="{}"), 400, "malformed-request"),
    "length 2^63": (_post(_KEY, "Content-Length: 9223372036854775808", body="{}"), 413, "too-large"),
    "length of 5,000 digits": (_post("Content-Length: " + "9" * 5_000, body="{}"), 400, "malformed-request"),
    "identity encoding": (_post("Transfer-Encoding: identity", body="0\r\n\r\n"), 400, "malformed-request"),
    "xchunked": (_post("Transfer-Encoding: xchunked", body="0\r\n\r\n"), 400, "malformed-request"),
    "two encodings": (_post(_CHUNKED, "Transfer-Encoding: identity", body="0\r\n\r\n"), 400, "malformed-request"),
    "gzip, then chunked": (_post(_KEY, "Transfer-Encoding: gzip, chunked", body="4\r\n\x1f\x8b\x08\x00\r\n0\r\n\r\n"), 400, "invalid-json"),
    "chunk of -1": (_post(_KEY, _CHUNKED, body="-1\r\n"), 400, "malformed-request"),
    "chunk without a number": (_post(_KEY, _CHUNKED, body="zz\r\n"), 400, "malformed-request"),
    "chunk larger than numbers": (_post(_KEY, _CHUNKED, body="ffffffffffffffffff\r\n"), 400, "malformed-request"),
    "a bad chunk after a good one": (_post(_KEY, _CHUNKED, body="2\r\n{}\r\nzz\r\n"), 400, "malformed-request"),
    "chunk without its end": (_post(_KEY, _CHUNKED, body="2\r\n{}}0\r\n\r\n"), 400, "malformed-request"),
    "key in a trailer": (_post(_CHUNKED, body="2\r\n{}\r\n0\r\nIdempotency-Key: k\r\n\r\n"), 400, "idempotency-key-missing"),
    "token in a trailer": (_post(_KEY, _CHUNKED, body="0\r\nAuthorization: Bearer TOKEN\r\n\r\n", token=False), 401, "unauthenticated"),
    "more framing than body": (_post(_KEY, _CHUNKED, body="2;" + "x" * 1_200_000), 413, "too-large"),
    "trailers without end": (_post(_KEY, _CHUNKED, body="0\r\n" + "X: y\r\n" * 200_000), 413, "too-large"),
    "slow body": (_post(_KEY, "Content-Length: 100", body="{"), 408, "request-timeout"),
    "body that ends early": (_post(_KEY, "Content-Length: 2", body="{}GET / HTTP/1.1"), 422, "validation-failed"),
    # Pages that are no API.
    "docs: traversal": (_get("/docs/assets/..%2f..%2f..%2fapp.py"), 404, "not-found"),
    "docs: NUL": (_get("/docs/assets/a%00b"), 404, "not-found"),
    "docs: long name": (_get("/docs/assets/" + "a" * 3_000), 404, "not-found"),
    "docs: a folder": (_get("/docs/assets/"), 404, "not-found"),
}  # fmt: skip


@pytest.mark.parametrize("name", _ATTACKS)
async def test_what_no_client_library_sends_gets_a_problem(
    app: FastAPI, address: tuple[str, int], settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    request, status, code = _ATTACKS[name]
    impatient = settings.model_copy(update={"http": settings.http.model_copy(update={"receive_deadline_ms": 700})})
    monkeypatch.setattr(app.state.resources, "settings", impatient)
    wire = await _connect(address)
    await wire.send(request.replace(b"TOKEN", mint(settings.app.home, sub="mallory", role="customer").encode()))
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


def resident_mib() -> float:
    """Memory of this process, which is server and attacker in one."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def test_200_mib_of_endless_bodies_leave_no_memory_behind_and_others_are_served(address: tuple[str, int], settings: Settings) -> None:
    token = mint(settings.app.home, sub="mallory", role="customer").encode()
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    heads = [
        _post(_KEY, _CHUNKED).replace(b"TOKEN", token),
        _post(_CHUNKED, token=False),
        _post(_KEY, "Content-Length: 209715200").replace(b"TOKEN", token),
    ]

    async def pour(head: bytes) -> int:
        wire, sent = await _connect(address), 0
        with contextlib.suppress(OSError):
            await wire.send(head)
            for _ in range(64):
                await wire.send(chunk)
                sent += len(chunk)
        with contextlib.suppress(OSError):
            assert (await wire.answer())[:12] in (b"HTTP/1.1 413", b"HTTP/1.1 401", b""), "refused, or cut while it was still sending"
        wire.writer.transport.abort()
        return sent

    async def served() -> None:
        wire = await _connect(address)
        await wire.send(_get("/v1/products/SKU-0001", "Authorization: Bearer " + token.decode()))
        assert (await wire.answer()).startswith(b"HTTP/1.1 200 ")

    for head in heads:
        await pour(head)  # what is allocated once is allocated now
    before, poured = resident_mib(), 0
    while poured < 200 * 2**20:
        poured += sum(await asyncio.gather(*(pour(head) for head in heads * 4)))
        await served()
    assert resident_mib() - before < 24, f"{resident_mib() - before:.0f} MiB more after {poured / 2**20:.0f} MiB"


async def test_connections_beyond_the_cap_are_refused(app: FastAPI) -> None:
    async with serving(app, HttpSettings(connections=10, drain_wait_s=0, drain_timeout_s=2)) as address:
        held = [await _connect(address) for _ in range(10)]
        extra = await _connect(address)
        assert (await extra.answer()).startswith(b"HTTP/1.1 503 ")
        for wire in held:
            wire.writer.close()


@pytest.mark.parametrize("rest_of_the_body", [b"{}", b""])
async def test_what_was_answered_before_its_body_came_may_finish_and_then_go_on(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch, rest_of_the_body: bytes
) -> None:
    """A refusal at the door meets a body that is on its way: its client may use the connection again, one that never sends it may not."""
    monkeypatch.setattr(server, "_LINGER_S", 0.1)
    wire = await _connect(address)
    await wire.send(b"POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n")
    head = await wire.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    await wire.reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
    if not rest_of_the_body:
        assert await wire.answer() == b"", "closed, and nothing more said"
        return
    await wire.send(rest_of_the_body)
    await asyncio.sleep(0.3)  # the moment that must pass is the one after which the connection used to be cut
    await wire.send(_get("/v1/orders"))
    assert (await wire.answer()).startswith(b"HTTP/1.1 401 ")


async def test_pipelined_requests_are_all_answered_in_order(address: tuple[str, int]) -> None:
    wire = await _connect(address)
    await wire.send(
        b"GET /v1/orders HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1_000 + b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    answer = await wire.answer()
    assert (answer.count(b"HTTP/1.1 401 "), answer.count(b"HTTP/1.1 404 ")) == (1_000, 1)


async def test_no_header_of_the_client_comes_back(address: tuple[str, int]) -> None:
    """CRLF, ANSI or a foreign form in X-Request-Id: a new id, and nothing of it in the answer."""
    for value in ("abcdefgh\x1b[2J", "a b c d e f g h", "short", "a" * 65, "abcdefgh%0d%0aSet-Cookie:x", "\xe4bcdefgh"):
        wire = await _connect(address)
        await wire.send(_get("/v1/orders", f"X-Request-Id: {value}", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil.test"))
        answer = await wire.answer()
        assert answer.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 ")), value
        assert answer.count(b"x-request-id: ") == 1, value
        assert value.encode("latin-1") not in answer
        assert b"evil.test" not in answer
    wire = await _connect(address)
    await wire.send(_get("/v1/orders", "X-Request-Id: client-made-0123"))
    assert b"x-request-id: client-made-0123\r\n" in await wire.answer()


async def test_who_hangs_up_in_the_middle_leaves_the_server_as_it_was(app: FastAPI, address: tuple[str, int], settings: Settings) -> None:
    token = mint(settings.app.home, sub="mallory", role="customer").encode()
    for request in (
        _post(_KEY, "Content-Length: 100", body="{"),
        _post(_KEY, _CHUNKED, body="5\r\n{"),
        _get("/v1/products", "Authorization: Bearer TOKEN"),
    ):
        for cut in (len(request), len(request) // 2):
            wire = await _connect(address)
            await wire.send(request[:cut].replace(b"TOKEN", token))
            wire.writer.transport.abort()
    served = await _connect(address)
    await served.send(_get("/v1/products/SKU-0001", "Authorization: Bearer " + token.decode()))
    assert (await served.answer()).startswith(b"HTTP/1.1 200 ")
    assert app.state.resources.admission._receiving == 0
