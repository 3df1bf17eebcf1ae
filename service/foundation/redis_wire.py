"""The hot path's Redis connection: one socket, many requests in flight, replies in order.

redis-py spends ten times the CPU on a pipeline of two (`python -m bench.compare_clients`); everything that is not
on the hot path uses redis-py. Parsing and packing are hiredis' own. A reply that is late breaks the connection,
because what comes next on it would belong to somebody else. docs/adr/0019 says when to drop this file.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url

# As words, or packed already.
Command = Sequence[str | bytes | int] | bytes
Login: TypeAlias = Callable[[], Awaitable[tuple[str, ...]]]

_CONNECT_FACTOR: Final = 4


class WireError(ConnectionError):
    """The connection broke or an answer was late; nothing is known about the commands sent."""


async def nobody() -> tuple[str, ...]:
    """The login of a server that asks for none."""
    return ()


class RedisWire:
    """Sends pipelines over one connection, opened when it is needed and opened again after it broke."""

    def __init__(self, url: str, *, login: Login = nobody, timeout_s: float) -> None:
        self._target = parse_url(url)
        self._login = login
        self._timeout_s = timeout_s
        self._protocol: _Protocol | None = None
        self._opening: asyncio.Task[_Protocol] | None = None

    def pipeline(self, commands: Sequence[Command]) -> Awaitable[list[Any]]:
        """One reply a command; a Redis error reply is a `hiredis.ReplyError` in its place. Raises `WireError`, `OSError`."""
        protocol = self._protocol
        if protocol is None or protocol.broken:
            return self._open_and_send(commands)
        return protocol.send(commands, self._timeout_s)  # the very future: a coroutine around it would be woken for nothing

    async def _open_and_send(self, commands: Sequence[Command]) -> list[Any]:
        protocol = await self._open()
        return await protocol.send(commands, self._timeout_s)

    def close(self) -> None:
        """Close the connection; a later `pipeline` opens a new one."""
        if self._opening is not None:
            self._opening.cancel()
        if self._protocol is not None:
            self._protocol.fail("closed")
            self._protocol = None

    async def _open(self) -> _Protocol:
        """All who wait share one attempt: a Redis that swallows bytes costs each one timeout, not one after another."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._connect(), name="redis-connect")
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._opening)

    async def _connect(self) -> _Protocol:
        loop, target = asyncio.get_running_loop(), self._target
        tls = ssl.create_default_context() if target.get("connection_class") is SSLConnection else None
        try:
            async with asyncio.timeout(self._timeout_s * _CONNECT_FACTOR):
                _, made = await loop.create_connection(_Protocol, target.get("host", "localhost"), target.get("port", 6379), ssl=tls)
        except TimeoutError as error:
            raise WireError("could not connect in time") from error
        try:
            await self._greet(made)
        except BaseException:
            made.fail("not greeted")  # also when cancelled: nobody else holds this socket
            raise
        self._protocol = made
        return made

    async def _greet(self, protocol: _Protocol) -> None:
        who = await self._login()
        greetings: list[Command] = [("AUTH", *who)] if who else []
        greetings.append(("SELECT", self._target.get("db", 0)))
        for answer in await protocol.send(greetings, self._timeout_s):
            if isinstance(answer, Exception):
                protocol.fail("refused")
                raise WireError(str(answer))


class _Protocol(asyncio.Protocol):
    """Replies come in the order of the commands; each waiter takes as many as it sent."""

    def __init__(self) -> None:
        self.broken = False
        self._reader = hiredis.Reader()
        # Who waits for how many replies, and until when; one timer watches the first, since all wait equally long.
        self._waiting: deque[tuple[asyncio.Future[list[Any]], int, float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._replies: list[Any] = []
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def send(self, commands: Sequence[Command], timeout_s: float) -> asyncio.Future[list[Any]]:
        """Write with whatever else this turn brings; resolves when the last reply is in. Raises `WireError`."""
        if self._transport is None or self.broken:
            raise WireError("not connected")
        loop, unsent = self._loop, self._unsent
        answer: asyncio.Future[list[Any]] = loop.create_future()
        until = loop.time() + timeout_s
        self._waiting.append((answer, len(commands), until))
        if self._watch is None:
            self._watch = loop.call_at(until, self._look)
        if not unsent:
            # Flushed at the end of this turn of the loop: what many requests ask for goes out in one system call.
            loop.call_soon(self._flush)
        # hiredis' stub knows one argument
        unsent += [command if type(command) is bytes else hiredis.pack_command(tuple(command)) for command in commands]  # type: ignore[arg-type]
        return answer

    def _look(self) -> None:
        """The first who waits has waited too long, or the timer was set for somebody who was served since."""
        self._watch = None
        if self._waiting:
            until = self._waiting[0][2]
            if until <= self._loop.time():
                self.fail("late")
            else:
                self._watch = self._loop.call_at(until, self._look)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and not self.broken:
            try:
                self._transport.write(b"".join(unsent))
            except (OSError, RuntimeError):  # uvloop says RuntimeError for a transport that was closed a moment ago
                self.fail("connection lost")

    def fail(self, reason: str) -> None:
        """Give up on the connection and on everybody who waits for it."""
        self.broken = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while self._waiting:
            answer, _, _ = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(WireError(reason))
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, _exc: Exception | None) -> None:
        self.fail("connection lost")

    def data_received(self, data: bytes) -> None:
        reader, waiting, replies = self._reader, self._waiting, self._replies
        reader.feed(data)
        while waiting:
            answer, count, _ = waiting[0]
            while len(replies) < count:
                if (reply := reader.gets()) is False:
                    return
                replies.append(reply)
            waiting.popleft()
            if not answer.done():
                answer.set_result(replies)
            replies = self._replies = []
