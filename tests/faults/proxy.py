"""A TCP proxy that misbehaves on command: put it between the service and PostgreSQL, Redis or a broker.

The mode may change at any time and counts for open connections too, from their next piece of data on.
Tests: tests/faults/test_proxy.py proves each mode by its effect.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Literal

_CHUNK: Final = 65_536
_RESET_NOW: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends a reset
Kind = Literal["pass", "delay", "black_hole", "reset", "refuse", "half_close", "slice", "cut"]


@dataclass(frozen=True, slots=True)
class Mode:
    """How the proxy behaves. Make one with the functions below."""

    kind: Kind = "pass"
    latency_s: float = 0.0
    jitter_s: float = 0.0
    limit_bytes: int = 0
    pause_s: float = 0.0


PASS: Final = Mode()
BLACK_HOLE: Final = Mode("black_hole")  # accepts, reads, answers nothing; what lost data is reset at its end, for TCP never leaves a gap
RESET: Final = Mode("reset")  # open and new connections end with a TCP reset
REFUSE: Final = Mode("refuse")  # nobody listens; open connections are reset
HALF_CLOSE: Final = Mode("half_close")  # the client is told "no more data", while its own side stays open


def delay(latency_s: float, *, jitter_s: float = 0.0) -> Mode:
    """Each piece of data waits `latency_s` ± `jitter_s` in each direction."""
    return Mode("delay", latency_s=latency_s, jitter_s=jitter_s)


def sliced(size_bytes: int, *, pause_s: float = 0.001) -> Mode:
    """Data arrives in pieces of `size_bytes`, `pause_s` apart."""
    return Mode("slice", limit_bytes=size_bytes, pause_s=pause_s)


def cut_after(count_bytes: int) -> Mode:
    """The server's answer breaks off (reset) after this many bytes from now on, per connection."""
    return Mode("cut", limit_bytes=count_bytes)


@dataclass(slots=True, eq=False)
class _Link:
    """One client's connection and ours to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    answered_bytes: int = 0
    lost_data: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def reset(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None and not writer.is_closing():
                with suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_NOW)
                writer.transport.abort()


class FaultProxy:
    """Listens on `port` of 127.0.0.1 and forwards to `target_port`; `tap` sees what clients send.

    `hits`: how often each mode was felt, by pieces of data or by connections: a fault nobody felt proves nothing.
    """

    def __init__(self, port: int, target_port: int, *, seed: int = 0, tap: Callable[[bytes], None] = lambda _: None) -> None:
        self.port, self.target_port = port, target_port
        self.mode = PASS
        self.accepted = 0
        self.hits: Counter[str] = Counter()
        self._tap = tap
        self._random = random.Random(seed)
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        await self._stop_listening()
        links = list(self._links)
        for link in links:
            link.reset()
        for task in [task for link in links for task in link.tasks]:
            task.cancel()

    async def set_mode(self, mode: Mode) -> None:
        """Change how it behaves, at once and for open connections too."""
        self.mode = mode
        if mode.kind == "refuse":
            await self._stop_listening()
        elif self._server is None:
            await self.start()
        for link in list(self._links):
            link.answered_bytes = 0
            if mode.kind in {"reset", "refuse"}:
                self.hits[mode.kind] += 1
                link.reset()
            elif mode.kind == "half_close":
                self.hits[mode.kind] += 1
                _end_of_data(link.client)
            elif link.lost_data and mode.kind != "black_hole":
                link.reset()

    async def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(writer)
        self._links.add(link)
        try:
            if self.mode.kind == "reset":
                self.hits["reset"] += 1
                link.reset()
                return
            server_reader, link.server = await asyncio.open_connection("127.0.0.1", self.target_port)
            if self.mode.kind == "half_close":
                _end_of_data(writer)
            link.tasks = [
                asyncio.create_task(self._pump(reader, link.server, link, answers=False)),
                asyncio.create_task(self._pump(server_reader, writer, link, answers=True)),
            ]
            await asyncio.gather(*link.tasks, return_exceptions=True)
        except OSError:
            link.reset()  # the server itself is away: so are we
        except asyncio.CancelledError:
            link.reset()  # the end of the loop: nobody waits for this task
        finally:
            self._links.discard(link)
            for one in (writer, link.server):
                if one is not None and not one.is_closing():
                    one.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link, *, answers: bool) -> None:
        try:
            while data := await reader.read(_CHUNK):
                if answers:
                    data = self._cut(data, link)
                else:
                    self._tap(data)
                await self._forward(data, writer, link)
                if answers and self.mode.kind == "cut" and link.answered_bytes >= self.mode.limit_bytes:
                    self.hits["cut"] += 1
                    link.reset()
                    return
            _end_of_data(writer)
        except OSError:
            link.reset()  # one side was reset: so is the other, or the server would keep a session for nobody

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter, link: _Link) -> None:
        mode = self.mode
        if mode.kind in {"black_hole", "delay", "slice"}:
            self.hits[mode.kind] += 1
        if mode.kind == "black_hole":
            link.lost_data = True
            return
        if mode.kind == "delay":
            await asyncio.sleep(max(0.0, mode.latency_s + self._random.uniform(-mode.jitter_s, mode.jitter_s)))
        if mode.kind == "slice":
            for begin in range(0, len(data), mode.limit_bytes):
                writer.write(data[begin : begin + mode.limit_bytes])
                await writer.drain()
                await asyncio.sleep(mode.pause_s)
            return
        if not writer.is_closing():
            writer.write(data)
            await writer.drain()

    def _cut(self, data: bytes, link: _Link) -> bytes:
        if self.mode.kind == "cut":
            data = data[: max(0, self.mode.limit_bytes - link.answered_bytes)]
        link.answered_bytes += len(data)
        return data


def _end_of_data(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, RuntimeError):
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()


@asynccontextmanager
async def running_proxy(port: int, target_port: int) -> AsyncIterator[FaultProxy]:
    """A started proxy, stopped at the end."""
    proxy = FaultProxy(port, target_port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
