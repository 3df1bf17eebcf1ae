"""The outermost middleware: request id, server span, access log, metrics, and the last word on errors.

One class for all of it, because every wrapper costs. Pure ASGI; non-HTTP scopes pass through.
An exception nobody expected becomes a 500 problem without internals, logged with its stack.
"""

from __future__ import annotations

import hashlib
import re
import time
from typing import Any, Final

import structlog
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError
from service.foundation import metrics, tracing
from service.foundation.log import get_logger
from service.outbox import new_id
from service.web.problems import problem_response

log = get_logger(__name__)

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9-]{8,64}")
# Methods are free text on the wire; a label value is not.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
_SECURITY: Final = {"x-content-type-options": "nosniff", "content-security-policy": "default-src 'none'; frame-ancestors 'none'"}


class Observe:
    """Says what happened to every request, once, at its end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, traceparent = _read_ids(scope)
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        exchange = _Exchange(scope, send, request_id)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        metrics.http_in_flight.inc()
        try:
            with tracing.span(scope["method"], SpanKind.SERVER, parent=tracing.remote(traceparent)) as span:
                await self._answer(scope, receive, exchange)
                span.update_name(f"{scope['method']} {exchange.route}")
                span.set_attributes(exchange.attributes())
                if exchange.status >= 500:
                    span.set_status(Status(StatusCode.ERROR))
                exchange.write_log()
        finally:
            metrics.http_in_flight.dec()
            exchange.count()
            structlog.contextvars.clear_contextvars()

    async def _answer(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        try:
            await self._app(scope, receive, exchange.send)
        except ServiceError as error:
            # Raised by a middleware below; routes turn theirs into responses themselves.
            if not exchange.begun:
                await problem_response(error, request_id=exchange.request_id)(scope, receive, exchange.send)
        except Exception as error:  # the last resort of the whole API: logged, counted as a 500
            log.exception("request.failed", error=type(error).__name__)
            if exchange.begun:
                raise
            await problem_response(ServiceError(), request_id=exchange.request_id)(scope, receive, exchange.send)


class _Exchange:
    """What is known about one request and its answer so far."""

    __slots__ = ("_scope", "_send", "_started", "begun", "request_id", "status")

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self._scope, self._send, self.request_id = scope, send, request_id
        self._started = time.perf_counter()
        self.begun, self.status = False, 500

    @property
    def route(self) -> str:
        return getattr(self._scope.get("route"), "path", "unmatched")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers["x-request-id"] = self.request_id
            for name, value in _SECURITY.items():
                headers.setdefault(name, value)
            if self._scope["app"].state.resources.lifecycle.stopping.is_set():
                headers["connection"] = "close"
        await self._send(message)

    def attributes(self) -> dict[str, Any]:
        return {"http.request.method": self._scope["method"], "http.route": self.route, "http.response.status_code": self.status}

    def count(self) -> None:
        method = self._scope["method"] if self._scope["method"] in _METHODS else "other"
        metrics.http_requests.labels(self.route, method, str(self.status)).inc()
        metrics.http_duration.labels(self.route, method).observe(time.perf_counter() - self._started)

    def write_log(self) -> None:
        caller = self._scope["state"].get("caller")
        principal = None if caller is None else hashlib.sha256(caller.subject.encode()).hexdigest()[:16]
        duration_ms = round((time.perf_counter() - self._started) * 1000, 2)
        log.info("http.request", method=self._scope["method"], route=self.route, status=self.status, duration_ms=duration_ms, principal=principal)


def _read_ids(scope: Scope) -> tuple[str, str | None]:
    request_id, traceparent = None, None
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            request_id = value.decode("ascii")
        elif name == b"traceparent":
            traceparent = value.decode("latin-1")
    return request_id or str(new_id()), traceparent
