"""uvloop raises RuntimeError for a transport that was closed a moment ago: for us that is Redis being away, never a surprise (500)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.foundation.redis import RedisAway, RedisClient
from service.foundation.redis_wire import WireError, _Protocol
from service.settings import load_settings

_CLOSED = RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")


class _ClosedTransport:
    def write(self, _: bytes) -> None:
        raise _CLOSED

    def abort(self) -> None: ...


async def test_a_call_over_a_closed_transport_says_redis_is_away() -> None:
    client = RedisClient(load_settings().redis)

    async def work() -> Any:
        raise _CLOSED

    with pytest.raises(RedisAway):
        await client.call(work())
    await client.close()


async def test_the_wire_gives_up_at_once() -> None:
    protocol = _Protocol()
    protocol.connection_made(_ClosedTransport())  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        with pytest.raises(WireError, match="connection lost"):
            await protocol.send([("PING",)], timeout_s=60.0)
    assert protocol.broken
