"""The webhook gets each message with its key, and what it answers is sorted by whose fault it is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.payments import ProviderAway, ProviderError
from service.web.health import QuietServer
from workers.sink import WebhookSink, open_sink

MESSAGE = {"event_id": "0190a0de-0000-7000-8000-000000000001", "type": "order.paid"}


class Hook:
    """A receiver that answers one status."""

    def __init__(self, status: int) -> None:
        self.status, self.seen = status, list[tuple[str, str, Any]]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.seen.append((request.method, request.headers["idempotency-key"], orjson.loads(await request.body())))
        await Response(status_code=self.status)(scope, receive, send)


@asynccontextmanager
async def told_to(hook: Hook, home: Path) -> AsyncIterator[WebhookSink]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = QuietServer(uvicorn.Config(hook, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    sink = open_sink(f"http://127.0.0.1:{listener.getsockname()[1]}/hook", home)
    assert isinstance(sink, WebhookSink)
    yield sink
    await sink.close()
    server.should_exit = True
    await task


async def test_a_message_is_posted_with_its_event_id_as_key(tmp_path: Path) -> None:
    hook = Hook(204)
    async with told_to(hook, tmp_path) as sink:
        await sink.send(MESSAGE)
        await sink.send(MESSAGE)
    assert hook.seen == [("POST", MESSAGE["event_id"], MESSAGE)] * 2


@pytest.mark.parametrize("status", [302, 400, 500])
async def test_an_error_answer_is_this_messages_problem(tmp_path: Path, status: int) -> None:
    async with told_to(Hook(status), tmp_path) as sink:
        with pytest.raises(ProviderError, match=str(status)):
            await sink.send(MESSAGE)


async def test_a_webhook_that_is_not_there_pauses_the_group(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        sink = open_sink(f"http://127.0.0.1:{deaf.getsockname()[1]}/hook", tmp_path)
        with pytest.raises(ProviderAway):
            await sink.send(MESSAGE)
        await sink.close()
