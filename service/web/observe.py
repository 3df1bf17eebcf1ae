"""The outermost middleware: request id, server span, access log, metrics, and the last word on errors.

One class for all of it, because every wrapper costs. Pure ASGI; non-HTTP scopes pass through.
An exception nobody expected becomes a 500 problem without internals, logged with its stack.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import MethodNotAllowed, NotFound, ServiceError
from service.foundation import metrics, tracing
from service.foundation.log import get_logger, line
from service.foundation.log import request_id as current_request_id
from service.web.exchange import Exchange
from service.web.problems import problem_response

log = get_logger(__name__)

# Methods are free text on the wire; a label value is not.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})


class Observe:
    """Says what happened to every request, once, at its end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._in_flight = 0
        metrics.http_in_flight.set_function(lambda: self._in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope["exchange"] = Exchange(scope, send, scope["app"].state.resources)
        current_request_id.set(exchange.request_id)  # until the next request of its task
        self._in_flight += 1
        with tracing.server_span(scope["method"], parent=exchange.head.get(b"traceparent")) as span:
            try:
                await self._app(scope, receive, exchange.send)
            except (ServiceError, HTTPException) as error:
                # Raised by a middleware below, or by the router; routes turn their own into responses.
                await self._refuse(exchange, _as_problem(error))
            except Exception as error:  # the last resort of the whole API: logged, counted as a 500
                log.exception("request.failed", error=type(error).__name__)
                if exchange.begun:
                    raise
                await self._refuse(exchange, ServiceError())
            finally:
                self._in_flight -= 1
                del scope["exchange"]  # which holds the scope: a ring would wait for the garbage collector
                _conclude(exchange, span)

    @staticmethod
    async def _refuse(exchange: Exchange, error: ServiceError) -> None:
        if not exchange.begun:
            await exchange.answer(problem_response(error, request_id=exchange.request_id))


def _conclude(exchange: Exchange, span: tracing.span | None) -> None:
    """The line, the counters, and the span's name: its route is known only now."""
    scope, status = exchange.scope, exchange.status
    method = scope["method"] if scope["method"] in _METHODS else "other"
    route = getattr(scope.get("route"), "path", "unmatched")
    took_s, exemplar = time.perf_counter() - exchange.started, None
    if span is not None:
        exemplar = {"trace_id": span.trace_id}
        span.name = f"{method} {route}"
        span.attributes = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        if status >= 500:
            span.error = str(status)
    limiter, cached = None, None
    if exchange.charged:
        limiter, cached = ("degraded", 0) if exchange.peeks is None else ("shared", len(exchange.peeks))
    fields = {
        "method": method, "route": route, "status": status, "principal": exchange.caller_tag,
        "limiter": limiter, "cached": cached, "duration_ms": int(took_s * 100_000) / 100,
        "request_id": exchange.request_id,
    }  # fmt: skip
    line("http.request", fields)
    requests, durations = _children(route, method, status)
    requests.inc()
    durations.observe(took_s, exemplar)


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
