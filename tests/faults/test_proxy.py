"""Each mode of the fault proxy, seen by a client of an echo server behind it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.proxy import BLACK_HOLE, HALF_CLOSE, PASS, REFUSE, RESET, FaultProxy, cut_after, delay, running_proxy, sliced
from tests.support.servers import free_base_port

_SOON_S = 10.0


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    base = free_base_port()
    server = await asyncio.start_server(_echo, "127.0.0.1", base)
    async with running_proxy(base + 100, base) as made:
        yield made
    server.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, data: bytes) -> bytes:
        """Send, and read the same number of bytes back."""
        self.writer.write(data)
        await self.writer.drain()
        async with asyncio.timeout(_SOON_S):
            return await self.reader.readexactly(len(data))


async def _connect(proxy: FaultProxy) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", proxy.port))


async def test_pass_forwards_everything(proxy: FaultProxy) -> None:
    client = await _connect(proxy)
    big = bytes(range(256)) * 2_000
    assert await client.ask(big) == big


async def test_delay_takes_its_time_each_way(proxy: FaultProxy) -> None:
    client = await _connect(proxy)
    await client.ask(b"warm")
    await proxy.set_mode(delay(0.1))
    begin = time.monotonic()
    assert await client.ask(b"x") == b"x"
    assert time.monotonic() - begin >= 0.2


async def test_jitter_varies(proxy: FaultProxy) -> None:
    client = await _connect(proxy)
    await proxy.set_mode(delay(0.03, jitter_s=0.03))
    taken = []
    for _ in range(8):
        begin = time.monotonic()
        await client.ask(b"x")
        taken.append(time.monotonic() - begin)
    assert max(taken) - min(taken) > 0.01


async def test_a_black_hole_answers_nothing_and_heals(proxy: FaultProxy) -> None:
    client = await _connect(proxy)
    await proxy.set_mode(BLACK_HOLE)
    client.writer.write(b"lost")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await client.reader.read(1)
    fresh = await _connect(proxy)  # it still accepts
    await proxy.set_mode(PASS)
    assert await fresh.ask(b"back") == b"back"
    with pytest.raises(ConnectionResetError):  # never a stream with a gap in it
        async with asyncio.timeout(_SOON_S):
            await client.reader.read(1)
    assert proxy.hits["black_hole"] == 1


async def test_reset_ends_open_and_new_connections(proxy: FaultProxy) -> None:
    client = await _connect(proxy)
    await client.ask(b"x")
    await proxy.set_mode(RESET)
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(_SOON_S):
            await client.reader.read(1)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await (await _connect(proxy)).ask(b"x")


async def test_refuse_stops_listening_and_comes_back(proxy: FaultProxy) -> None:
    client = await _connect(proxy)
    await client.ask(b"x")
    await proxy.set_mode(REFUSE)
    with pytest.raises(ConnectionRefusedError):
        await _connect(proxy)
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(_SOON_S):
            await client.reader.read(1)
    await proxy.set_mode(PASS)
    assert await (await _connect(proxy)).ask(b"back") == b"back"


async def test_half_close_ends_the_answers_only(proxy: FaultProxy) -> None:
    client = await _connect(proxy)
    await client.ask(b"x")
    await proxy.set_mode(HALF_CLOSE)
    async with asyncio.timeout(_SOON_S):
        assert await client.reader.read(1) == b""
    client.writer.write(b"still open")
    await client.writer.drain()
    assert not client.writer.is_closing()


async def test_slices_arrive_apart(proxy: FaultProxy) -> None:
    client = await _connect(proxy)
    await proxy.set_mode(sliced(3, pause_s=0.02))
    client.writer.write(b"0123456789")
    pieces: list[bytes] = []
    async with asyncio.timeout(_SOON_S):
        while sum(map(len, pieces)) < 10:
            pieces.append(await client.reader.read(100))
    assert b"".join(pieces) == b"0123456789"
    assert len(pieces) > 1


async def test_cut_breaks_off_after_n_bytes(proxy: FaultProxy) -> None:
    await proxy.set_mode(cut_after(4))
    loop = asyncio.get_running_loop()
    # A bare socket: a stream reader would drop what arrived before the reset.
    with socket.socket() as client:
        client.settimeout(0)
        await loop.sock_connect(client, ("127.0.0.1", proxy.port))
        await loop.sock_sendall(client, b"0123456789")
        async with asyncio.timeout(_SOON_S):
            assert await loop.sock_recv(client, 100) == b"0123"
            with pytest.raises(ConnectionResetError):
                await loop.sock_recv(client, 100)


async def test_a_server_that_is_away_is_a_reset(proxy: FaultProxy) -> None:
    proxy.target_port += 1
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await (await _connect(proxy)).ask(b"x")
