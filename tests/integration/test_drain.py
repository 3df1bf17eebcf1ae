"""Going away, step by step: what is accepted is answered, what hangs is cut and told, nothing waits for ever."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from service.foundation.lifecycle import Lifecycle
from service.settings import HttpSettings
from service.web.server import serve_api

_DEADLINE_S = 60.0


@dataclass(slots=True)
class Leaving:
    """A server that will be told to go; `/slow` is answered once `let_go` is set."""

    address: tuple[str, int]
    lifecycle: Lifecycle
    task: asyncio.Task[bool]
    entered: asyncio.Event
    let_go: asyncio.Event

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    async def stop_accepting(self) -> None:
        """Tell it to go and wait until nobody listens any more."""
        self.lifecycle.stop()
        async with asyncio.timeout(_DEADLINE_S):
            while await self._is_open():  # noqa: ASYNC110 - the server sets no event of ours
                await asyncio.sleep(0.01)

    async def _is_open(self) -> bool:
        try:
            _, writer = await self.connect()
        except OSError:
            return False
        writer.transport.abort()
        return True


@asynccontextmanager
async def leaving(*, drain_timeout_s: float) -> AsyncIterator[Leaving]:
    listener = socket.create_server(("127.0.0.1", 0))
    entered, let_go, lifecycle = asyncio.Event(), asyncio.Event(), Lifecycle()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for done in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{done}.complete"})
            return
        if scope["path"] == "/slow":
            entered.set()
            await let_go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    settings = HttpSettings(drain_wait_s=0, drain_timeout_s=drain_timeout_s)
    task = asyncio.create_task(serve_api(app, settings, lifecycle, fd=os.dup(listener.fileno())))
    address = listener.getsockname()[:2]
    listener.close()
    yield Leaving(address, lifecycle, task, entered, let_go)
    lifecycle.stop()
    await task


async def _ask(writer: asyncio.StreamWriter, path: str) -> None:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await writer.drain()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(_DEADLINE_S):
        return await reader.read()


async def test_a_request_in_hand_is_answered_and_counts_as_no_cut() -> None:
    async with leaving(drain_timeout_s=30) as server:
        reader, writer = await server.connect()
        await _ask(writer, "/slow")
        await server.entered.wait()
        await server.stop_accepting()
        server.let_go.set()
        answer = await _answer(reader)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        assert await server.task


async def test_a_connection_accepted_as_the_drain_begins_still_gets_its_answer() -> None:
    """Under load there is always one: closed at once, its request would fail though nothing is wrong with it."""
    async with leaving(drain_timeout_s=30) as server:
        await (await server.connect())[1].drain()
        whole, begun, silent = [await server.connect() for _ in range(3)]
        begun[1].write(b"GET /fast HTTP/1.1\r\nHost: loc")
        await begun[1].drain()
        await server.stop_accepting()
        await _ask(whole[1], "/fast")
        begun[1].write(b"alhost\r\n\r\n")
        for reader, _ in (whole, begun):
            answer = await _answer(reader)
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            assert b"connection: close" in answer
        assert await _answer(silent[0]) == b"", "who says nothing is not waited for"
        assert await server.task


async def test_a_connection_that_was_answered_before_is_closed_at_once() -> None:
    async with leaving(drain_timeout_s=30) as server:
        reader, writer = await server.connect()
        await _ask(writer, "/fast")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        server.lifecycle.stop()
        assert await _answer(reader) == b""
        assert await server.task


async def test_a_request_that_outlives_the_drain_is_cut_and_the_exit_says_so() -> None:
    async with leaving(drain_timeout_s=1) as server:
        reader, writer = await server.connect()
        await _ask(writer, "/slow")
        await server.entered.wait()
        server.lifecycle.stop()
        assert await server.task is False
        assert b"200" not in await _answer(reader)
