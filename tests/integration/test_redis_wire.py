"""The lean Redis connection under faults: whoever waits is told together, and no answer reaches the wrong caller."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.foundation.redis_wire import RedisWire, WireError


async def test_a_black_hole_costs_everybody_one_timeout_not_one_each() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    hole = await asyncio.start_server(swallow, "127.0.0.1", 0)
    wire = RedisWire(f"redis://127.0.0.1:{hole.sockets[0].getsockname()[1]}/0", timeout_s=0.1)
    began = time.monotonic()
    answers = await asyncio.gather(*(wire.pipeline([("PING",)]) for _ in range(100)), return_exceptions=True)
    wire.close()
    hole.close()
    assert {type(answer) for answer in answers} == {WireError}
    assert time.monotonic() - began < 2.5  # one after another: 10 s


async def test_a_late_reply_is_never_given_to_the_next_caller() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        first = connections == 1
        await reader.read(1024)
        writer.write(b"+OK\r\n")
        await reader.read(1024)
        if first:
            await asyncio.sleep(0.6)
        writer.write(b"+late\r\n" if first else b"+mine\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = RedisWire(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", timeout_s=0.3)
    with pytest.raises(WireError):
        await wire.pipeline([("GET", "a")])
    assert await wire.pipeline([("GET", "b")]) == [b"mine"]
    wire.close()
    server.close()
