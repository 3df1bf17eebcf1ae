"""The one uvicorn subclass: deadlines and limits below HTTP, our problems for broken requests, and the drain.

1. A signal: readiness turns 503, answers say `Connection: close`, new requests are still accepted
   while load balancers notice (`drain_wait_s`).
2. Stop accepting; requests in hand get `drain_timeout_s`, and a connection accepted in that very moment its one answer.
3. Close pools and exporters, bounded; exit 0 if nothing was cut. A second signal ends it at once.

uvicorn itself waits for ever for headers and bodies: 500 half-open requests would stay open.
Tests: tests/integration/test_server.py (raw sockets), tests/integration/test_drain.py.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from typing import Any, ClassVar, Final

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.errors import HeadersTooLarge, MalformedRequest, Overloaded, RequestTimeout, ServiceError, TooLarge, UriTooLong
from service.foundation import metrics
from service.foundation.lifecycle import Lifecycle
from service.foundation.log import get_logger
from service.outbox import new_id
from service.settings import HttpSettings
from service.web.health import QuietServer
from service.web.problems import problem_response

log = get_logger(__name__)

_LINGER_S: Final = 1.0
_SLACK_BYTES: Final = 1_024
_CHUNK_OVERHEAD: Final = 8  # the smallest chunk is one byte of body in six


class LimitedProtocol(HttpToolsProtocol):
    """One connection; `limits` is set by `protocol_class`."""

    limits: ClassVar[HttpSettings]
    _head_bytes = 0  # received and no body
    _in_body = False
    _head_timer: asyncio.TimerHandle | None = None
    _leaving = False
    _idle_since = 0.0
    # The task that works this connection's requests off, one after another: to make one a request costs twice as much as to wake it.
    _worker: asyncio.Task[None] | None = None
    _woken: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._todo: list[tuple[RequestResponseCycle, ASGIApp]] = []
        # What uvicorn's `on_message_begin` says of each request and is the same for all of a connection.
        self._opening: Any = {
            "type": "http", "asgi": {"version": self.asgi_version, "spec_version": "2.3"}, "http_version": "1.1",
            "server": self.server, "client": self.client, "scheme": self.scheme, "root_path": self.root_path,
        }  # fmt: skip
        if len(self.connections) > self.limits.connections:
            self._refuse(Overloaded("too many connections"))
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():  # refused; what still arrives is nobody's
            return
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # no upgrades are offered: the request itself is answered
        except httptools.HttpParserError:
            self._refuse(MalformedRequest("not valid HTTP/1.1"))
        if self._head_bytes:  # of a request that is not complete yet
            self._limit_head()
        if self._idle() and not self.transport.is_closing():  # most heads come whole, and need no timer
            self._arm()

    def _limit_head(self) -> None:
        limits, allowed = self.limits, self.limits.uri_bytes + self.limits.header_bytes + _SLACK_BYTES
        if self.transport.is_closing():
            return
        if self._in_body and self._head_bytes > allowed + _CHUNK_OVERHEAD * limits.body_bytes:
            self._refuse(TooLarge("more chunk framing and trailers than body"))
        elif not self._in_body and self._head_bytes > allowed:
            self._refuse(UriTooLong() if len(self.url) > limits.uri_bytes else HeadersTooLarge())

    def on_message_begin(self) -> None:
        self._in_body, self.expect_100_continue, self.url, self.headers = False, False, b"", []
        self.scope = {**self._opening, "headers": self.headers, "state": self.app_state.copy()}  # type: ignore[typeddict-item]  # the rest comes with the head

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # a trailer is no header: nobody in front of us has checked it
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._head_timer is not None:
            self._disarm()
        received, self._head_bytes, self._in_body = self._head_bytes, 0, True
        self.scope["head_bytes"] = received  # type: ignore[typeddict-unknown-key]  # at least: the guard counts only what could be too much
        method = self.parser.get_method()
        if method != b"GET":  # nobody waits for the body of a GET
            self.expect_100_continue = any(name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers)
        if self.url[:1] == b"/" and b"%" not in self.url and b"#" not in self.url:
            self._begin_plainly(method)
        else:
            super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    def _begin_plainly(self, method: bytes) -> None:
        """As uvicorn's `on_headers_complete`, for a path without escapes: nothing to parse, and one cycle of ours."""
        scope, version = self.scope, self.parser.get_http_version()
        scope["method"] = method.decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        scope["raw_path"], _, scope["query_string"] = self.url.partition(b"?")
        scope["path"] = scope["raw_path"].decode("ascii")
        before, self.cycle = self.cycle, _Cycle(self, keep_alive=version != "1.0" and self.parser.should_keep_alive())
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def shutdown(self) -> None:
        """The drain begins; a request that is on its way to a connection just accepted is still answered."""
        self._leaving = True
        if self.cycle is None or self._head_bytes:
            self.loop.call_later(_LINGER_S, self._give_up)
        else:
            super().shutdown()

    def _give_up(self) -> None:
        if self._idle() and not self.transport.is_closing():
            self._too_slow()

    def on_body(self, body: bytes) -> None:
        self._head_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes, self._in_body = 0, False
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]  # as uvicorn's own
        cycle.scope["answer"] = partial(_answer, cycle)  # type: ignore[typeddict-unknown-key]  # an extension of ours
        self._todo.append((cycle, app))
        if self._worker is None:
            self._worker = self.loop.create_task(self._work())
        self.tasks.add(self._worker)  # the drain waits for those who have a request in hand
        self._wake()

    async def _work(self) -> None:
        assert self._worker is not None
        while self._todo:  # woken without a request: the connection was lost
            cycle, app = self._todo.pop()
            await cycle.run_asgi(app)  # type: ignore[arg-type]  # starlette's word for an application, uvicorn has its own
            if not self._todo:
                self.tasks.discard(self._worker)
                if self.transport.is_closing():
                    return
                self._woken = self.loop.create_future()
                await self._woken

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())  # type: ignore[arg-type]
        else:
            self._await_next()
        if self._in_body and not self.pipeline and not self.transport.is_closing():
            # Answered before the body came: give the client a moment to read that and to finish, then stop listening to it.
            self.loop.call_later(_LINGER_S, self._stop_listening, self.cycle)

    def _await_next(self) -> None:
        """Keep-alive ends by one timer a connection that looks again; uvicorn sets and cancels one for every request."""
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)

    def _close_if_idle(self) -> None:
        self.timeout_keep_alive_task = None
        if not self._idle() or self._head_bytes or self.transport.is_closing():
            return  # the next answer looks again; a head that does not come has a timer of its own
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self._close_if_idle)
        else:
            self.transport.close()

    def _stop_listening(self, answered: RequestResponseCycle) -> None:
        """The body of a request answered long ago still comes; one that has come since leaves the connection to the next request."""
        if self.cycle is answered and self._in_body:
            self.transport.close()

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _unanswered(self) -> bool:
        """May we answer? Takes the word from the application if it waits for a body that broke."""
        if self._idle() or self.pipeline or self.cycle.response_started or not self._in_body:
            return self._idle()
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return True

    def _arm(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.receive_deadline_ms / 1000, self._too_slow)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self._head_bytes:
            self._refuse(RequestTimeout("headers took too long"))
        else:
            self.transport.close()

    def _refuse(self, error: ServiceError) -> None:
        """Answer a request that is none with a problem, and close; silent if an answer is under way."""
        self._disarm()
        if self._unanswered() and not self.transport.is_closing():
            self.transport.write(_raw(error))
            metrics.http_requests.labels("unmatched", "other", str(error.status)).inc()
            log.info("http.refused", code=error.slug)
        self.transport.close()


class _Cycle(RequestResponseCycle):
    """uvicorn's, with what is the same at every beginning said once."""

    logger = access_logger = logging.getLogger("uvicorn.error")
    access_log, default_headers = False, []
    disconnected = response_started = response_complete = False
    more_body, body = True, b""  # type: ignore[assignment]  # grown by += like uvicorn's own
    chunked_encoding, expected_content_length = None, 0

    def __init__(self, protocol: LimitedProtocol, *, keep_alive: bool) -> None:
        self.scope, self.transport, self.flow = protocol.scope, protocol.transport, protocol.flow
        self.message_event, self.on_response = asyncio.Event(), protocol.on_response_complete
        self.keep_alive, self.waiting_for_100_continue = keep_alive, protocol.expect_100_continue


def _answer(cycle: RequestResponseCycle, status: int, lines: bytes, body: bytes, *, closes: bool) -> bool:
    """A complete answer in one write: what `cycle.send` does in two messages, header by header.

    False if the client does not read: then it takes `cycle.send`, which waits.
    """
    if cycle.flow.write_paused:
        return False
    if cycle.disconnected:
        return True
    if closes:
        cycle.keep_alive = False
    if not cycle.keep_alive and b"connection: close\r\n" not in lines:
        lines += b"connection: close\r\n"
    cycle.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], lines, body))
    cycle.response_started = cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def protocol_class(settings: HttpSettings) -> type[LimitedProtocol]:
    """uvicorn's protocol with this service's limits."""
    return type("Protocol", (LimitedProtocol,), {"limits": settings})


def _raw(error: ServiceError) -> bytes:
    request_id = str(new_id())
    response = problem_response(error, request_id=request_id)
    named = [*response.raw_headers, (b"x-request-id", request_id.encode())]
    headers = b"".join(name + b": " + value + b"\r\n" for name, value in named)
    return STATUS_LINE[error.status] + headers + b"connection: close\r\n\r\n" + bytes(response.body)


class _DrainingServer(QuietServer):
    """Remembers whether the drain had to cut a request; afterwards uvicorn knows it no more."""

    cut = False

    async def _wait_tasks_to_complete(self) -> None:
        try:
            await super()._wait_tasks_to_complete()
        finally:
            self.cut = bool(self.server_state.tasks)


def _config(app: ASGIApp, settings: HttpSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        loop="uvloop",
        http=protocol_class(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,  # uvicorn trusts loopback otherwise; forwarded addresses are read by our own rule
        timeout_keep_alive=settings.keep_alive_s,
        backlog=2048,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )


async def serve_api(app: ASGIApp, settings: HttpSettings, lifecycle: Lifecycle, *, fd: int | None = None) -> bool:
    """Serve until a signal, then drain; True if no request was cut. `fd`: an inherited listening socket."""
    listener = socket.socket(fileno=fd) if fd is not None else socket.create_server((settings.host, settings.port), backlog=2048)
    server = _DrainingServer(_config(app, settings))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="api-server")
    stopping = asyncio.create_task(lifecycle.stopping.wait(), name="await-stop")
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        await asyncio.sleep(settings.drain_wait_s)
        server.should_exit = True
    await serving
    stopping.cancel()
    return server.started and not server.cut
