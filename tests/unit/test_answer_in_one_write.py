"""A complete answer goes out in one write, says the same as uvicorn's two, and waits for a client that does not read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.web.head import head_lines, head_pairs
from service.web.server import _answer

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2"), (b"x-request-id", b"abc")]


class Wire:
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True


def cycle_on(wire: Wire, done: list[bool], *, keep_alive: bool = True) -> Any:
    flow = FlowControl(SimpleNamespace(pause_reading=lambda: None, resume_reading=lambda: None))  # type: ignore[arg-type]
    return RequestResponseCycle(
        scope={"method": "GET"}, transport=wire, flow=flow, logger=None, access_logger=None, access_log=False, default_headers=[],  # type: ignore[arg-type]
        message_event=asyncio.Event(), expect_100_continue=False, keep_alive=keep_alive, on_response=lambda: done.append(True),
    )  # fmt: skip


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("headers", [HEADERS, [*HEADERS, (b"connection", b"close")]])
async def test_one_write_says_what_two_messages_say(headers: list[tuple[bytes, bytes]], keep_alive: bool) -> None:  # noqa: FBT001 - a parameter
    ours, theirs, done = Wire(), Wire(), []
    assert _answer(cycle_on(ours, done, keep_alive=keep_alive), 200, head_lines(headers), b"{}", closes=len(headers) > len(HEADERS))
    slow = cycle_on(theirs, done, keep_alive=keep_alive)
    await slow.send({"type": "http.response.start", "status": 200, "headers": headers})
    await slow.send({"type": "http.response.body", "body": b"{}"})
    assert len(ours.writes) == 1
    assert ours.writes[0] == b"".join(theirs.writes)
    assert ours.closed == theirs.closed == (not keep_alive or len(headers) > len(HEADERS))
    assert done == [True, True]


async def test_a_client_that_does_not_read_is_waited_for() -> None:
    wire, done = Wire(), []
    cycle = cycle_on(wire, done)
    cycle.flow.pause_writing()
    assert not _answer(cycle, 200, head_lines(HEADERS), b"{}", closes=False)
    assert (wire.writes, done, cycle.response_started) == ([], [], False)


async def test_a_client_that_left_is_answered_no_more() -> None:
    wire, done = Wire(), []
    cycle = cycle_on(wire, done)
    cycle.disconnected = True
    assert _answer(cycle, 200, head_lines(HEADERS), b"{}", closes=False)
    assert (wire.writes, done) == ([], [])


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb"])
def test_a_header_of_two_lines_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="line break"):
        head_lines([(b"location", value)])


def test_head_lines_are_read_back_as_they_were() -> None:
    pairs = [*HEADERS, (b"link", b"<a: b>; rel=next"), (b"empty", b"")]
    assert head_pairs(head_lines(pairs)) == pairs
    assert head_pairs(b"") == []
