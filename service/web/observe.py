"""The outermost middleware: request id, server span, access log, metrics, and the last word on errors.

One class for all of it, because every wrapper costs. Pure ASGI; non-HTTP scopes pass through.
An exception nobody expected becomes a 500 problem without internals, logged with its stack.
"""

from __future__ import annotations

import re
import time
from functools import cache
from typing import Any, Final

from opentelemetry.trace import Span
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from service.errors import MethodNotAllowed, NotFound, ServiceError
from service.foundation import metrics, tracing
from service.foundation.log import access as write_access_line
from service.foundation.log import get_logger
from service.foundation.log import request_id as current_request_id
from service.web.problems import problem_response

log = get_logger(__name__)

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9-]{8,64}")
# Methods are free text on the wire; a label value is not.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
_CSP: Final = b"content-security-policy"
_SECURITY: Final = ((b"x-content-type-options", b"nosniff"), (_CSP, b"default-src 'none'; frame-ancestors 'none'"))


class Observe:
    """Says what happened to every request, once, at its end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, traceparent = _read_ids(scope)
        scope["state"] = {"request_id": request_id}
        current_request_id.set(request_id)  # the server runs each request in a task of its own
        exchange = _Exchange(scope, send, request_id)
        metrics.http_in_flight.inc()
        try:
            with tracing.server_span(scope["method"], parent=traceparent) as span:
                await self._answer(scope, receive, exchange)
                exchange.describe(span)
                exchange.write_log()
        finally:
            metrics.http_in_flight.dec()
            exchange.count()

    async def _answer(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        try:
            await self._app(scope, receive, exchange.send)
        except (ServiceError, HTTPException) as error:
            # Raised by a middleware below, or by the router; routes turn their own into responses.
            await self._refuse(scope, receive, exchange, _as_problem(error))
        except Exception as error:  # the last resort of the whole API: logged, counted as a 500
            log.exception("request.failed", error=type(error).__name__)
            if exchange.begun:
                raise
            await self._refuse(scope, receive, exchange, ServiceError())

    @staticmethod
    async def _refuse(scope: Scope, receive: Receive, exchange: _Exchange, error: ServiceError) -> None:
        if not exchange.begun:
            await problem_response(error, request_id=exchange.request_id)(scope, receive, exchange.send)


class _Exchange:
    """What is known about one request and its answer so far."""

    __slots__ = ("_scope", "_send", "_started", "begun", "exemplar", "request_id", "status")

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self._scope, self._send, self.request_id = scope, send, request_id
        self._started = time.perf_counter()
        self.begun, self.status = False, 500
        self.exemplar: dict[str, str] | None = None

    @property
    def route(self) -> str:
        return getattr(self._scope.get("route"), "path", "unmatched")

    @property
    def method(self) -> str:
        method: str = self._scope["method"]
        return method if method in _METHODS else "other"

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
            headers = message["headers"] = list(message.get("headers", ()))
            own_policy = any(name == _CSP for name, _ in headers)
            headers += (_SECURITY[0], (b"x-request-id", self.request_id.encode())) if own_policy else (
                *_SECURITY, (b"x-request-id", self.request_id.encode()))  # fmt: skip
            if self._scope["app"].state.resources.lifecycle.stopping.is_set():
                headers.append((b"connection", b"close"))
        await self._send(message)

    def describe(self, span: Span) -> None:
        """Name the span by its route, which is known only now."""
        if not span.is_recording():
            return
        self.exemplar = {"trace_id": f"{span.get_span_context().trace_id:032x}"}
        span.update_name(f"{self.method} {self.route}")
        span.set_attributes({"http.request.method": self.method, "http.route": self.route, "http.response.status_code": self.status})
        if self.status >= 500:
            tracing.mark_failed(span, str(self.status))

    def count(self) -> None:
        requests, durations = _children(self.route, self.method, self.status)
        requests.inc()
        durations.observe(time.perf_counter() - self._started, self.exemplar)

    def write_log(self) -> None:
        state = self._scope["state"]
        caller, verdict = state.get("caller"), state.get("verdict")
        write_access_line({
            "method": self.method, "route": self.route, "status": self.status, "principal": None if caller is None else caller.tag,
            "limiter": None if verdict is None else "degraded" if verdict.peeks is None else "shared",
            "cached": None if verdict is None else len(verdict.peeks or ()), "duration_ms": round((time.perf_counter() - self._started) * 1000, 2),
        })  # fmt: skip


@cache
def _children(route: str, method: str, status: int) -> tuple[Any, Any]:
    """Metrics bound once for each combination: routes, methods and statuses are few."""
    return metrics.http_requests.labels(route, method, str(status)), metrics.http_duration.labels(route, method)


def _as_problem(error: ServiceError | HTTPException) -> ServiceError:
    """What the router itself raises: no such path, no such method."""
    if isinstance(error, ServiceError):
        return error
    if error.status_code == 405:
        return MethodNotAllowed(headers={"allow": (error.headers or {}).get("Allow", "")})
    return NotFound() if error.status_code == 404 else ServiceError()


def _read_ids(scope: Scope) -> tuple[str, str | None]:
    request_id, traceparent = None, None
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            request_id = value.decode("ascii")
        elif name == b"traceparent":
            traceparent = value.decode("latin-1")
    return request_id or str(uuid7()), traceparent
