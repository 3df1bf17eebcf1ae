"""One task works a connection's requests off: in hand only while there is a request, gone with the connection, and no garbage left behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import Scope
from uvicorn.server import ServerState

from service.settings import HttpSettings
from service.web import server
from service.web.exchange import Reply
from service.web.observe import Observe

_REQUEST = b"GET /v1/orders HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def until(look: Callable[[], bool], what: str) -> None:
    """Turn the loop until it is so."""
    try:
        async with asyncio.timeout(10):
            while not look():  # noqa: ASYNC110 - one turn of the loop each
                await asyncio.sleep(0)
    except TimeoutError:
        pytest.fail(f"not {what}")


class Wire:
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None: ...

    resume_reading = pause_reading

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 80)}.get(name, default)


class Connection:
    """A connection to an application, without a socket."""

    def __init__(self, app: Any) -> None:
        config = server._config(app, HttpSettings())
        config.load()
        self.wire, self.state = Wire(), ServerState()
        self.protocol: Any = config.http_protocol_class(config=config, server_state=self.state, app_state={})  # type: ignore[call-arg, operator]  # declared as asyncio's, made as uvicorn makes it
        self.protocol.connection_made(self.wire)

    async def get(self, times: int = 1) -> None:
        """Send that many requests at once and wait for their answers."""
        before = len(self.wire.written)
        self.protocol.data_received(_REQUEST * times)
        await until(lambda: len(self.wire.written) == before + times and not self.state.tasks, "answered, and nothing in hand")

    def lose(self) -> None:
        """The client is gone."""
        self.wire.closing = True
        self.protocol.connection_lost(None)


@pytest.fixture
def opened() -> Any:
    """Tasks that answered a request, and a way to open connections to them."""
    tasks: list[asyncio.Task[Any] | None] = []

    async def app(scope: Scope, *_: Any) -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        scope["answer"](204, b"", b"", closes=False)

    return tasks, lambda: Connection(app)


async def test_requests_of_a_connection_share_a_task_and_those_of_another_do_not(opened: tuple[list[Any], Callable[[], Connection]]) -> None:
    tasks, connect = opened
    first, other = connect(), connect()
    for connection in (first, other, first):
        await connection.get()
    await first.get(times=3)  # pipelined
    assert len(tasks) == 6
    assert set(tasks) == {tasks[0], tasks[1]}
    assert tasks.count(tasks[0]) == 5


async def test_a_task_is_in_hand_for_the_drain_only_while_a_request_is(opened: tuple[list[Any], Callable[[], Connection]]) -> None:
    tasks, connect = opened
    connection = connect()
    await connection.get()
    connection.protocol.data_received(_REQUEST)
    assert connection.state.tasks == {tasks[0]}
    await until(lambda: not connection.state.tasks, "answered")
    assert not tasks[0].done(), "it waits for the next one"


@pytest.mark.parametrize("busy", [False, True])
async def test_a_lost_connection_ends_its_task(opened: tuple[list[Any], Callable[[], Connection]], busy: bool) -> None:  # noqa: FBT001 - a parameter
    tasks, connect = opened
    connection = connect()
    await connection.get()
    if busy:
        connection.protocol.data_received(_REQUEST)
    connection.lose()
    await until(lambda: tasks[0].done() and not connection.state.tasks, "ended")
    assert len(tasks) == 1 + busy, "what was begun is finished"


@pytest.mark.parametrize("path", [b"/v1/orders", b"/v1/orders%2F"])
async def test_who_waits_to_be_asked_for_a_body_is_asked(path: bytes) -> None:
    bodies: list[bytes] = []

    async def app(scope: Scope, receive: Any, _send: Any) -> None:
        bodies.append((await receive())["body"])
        scope["answer"](204, b"", b"", closes=False)

    connection = Connection(app)
    connection.protocol.data_received(b"POST %b HTTP/1.1\r\nhost: localhost\r\nExpect: 100-Continue\r\ncontent-length: 2\r\n\r\n" % path)
    await until(lambda: connection.wire.written == [b"HTTP/1.1 100 Continue\r\n\r\n"], "asked")
    connection.protocol.data_received(b"{}")
    await until(lambda: bodies == [b"{}"] and not connection.state.tasks, "read")


@pytest.mark.asyncio(loop_scope="function")  # on the session's loop others may be at work, and leave theirs
async def test_a_request_leaves_nothing_for_the_garbage_collector() -> None:
    async def answers(scope: Scope, *_: Any) -> None:
        await scope["exchange"].answer(Reply(b"{}", b""))

    observed, resources = Observe(answers), SimpleNamespace(lifecycle=SimpleNamespace(stopping=asyncio.Event()))

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        scope["app"] = SimpleNamespace(state=SimpleNamespace(resources=resources))
        await observed(scope, receive, send)

    connection = Connection(app)
    await connection.get()
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            await connection.get()
        assert gc.collect() < 50, "a ring of references a request, which only the collector takes apart"
    finally:
        gc.enable()
