"""One request and its answer: the headers read once, what names the request, and the one way out.

Every answer carries the security headers and the request id, whoever made it. A complete answer goes to the server
in one piece (`service/web/server.py`), where it offers that; anything else takes ASGI's messages.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from starlette.responses import Response
from starlette.types import Message, Scope, Send
from uuid_utils import uuid7

from service.foundation.cache import Peeks
from service.web.resources import Resources

Headers = Sequence[tuple[bytes, bytes]]
# (status, headers, body) to the wire, at once; False if the client does not read and the answer has to wait.
Answerer = Callable[[int, Headers, bytes], bool]

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9-]{8,64}")
# Methods are free text on the wire; a label value is not.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
_CSP: Final = b"content-security-policy"
_SECURITY: Final = ((b"x-content-type-options", b"nosniff"), (_CSP, b"default-src 'none'; frame-ancestors 'none'"))


class Head:
    """A request's headers by name: one look at each, however many ask."""

    __slots__ = ("_pairs", "_repeats", "_values")

    def __init__(self, pairs: Headers) -> None:
        self._pairs, self._values = pairs, dict(pairs)
        # True if any name came twice: `all` then has to look at every pair.
        self._repeats = len(self._values) != len(pairs)

    def get(self, name: bytes) -> bytes | None:
        """The value (of several, the last); None if there is none. Names are lower case."""
        return self._values.get(name)

    def all(self, name: bytes) -> list[bytes]:
        """Every value, in order."""
        if self._repeats:
            return [value for key, value in self._pairs if key == name]
        value = self._values.get(name)
        return [] if value is None else [value]


class Reply(Response):
    """A complete answer whose headers are bytes already; `content-length` is added."""

    def __init__(self, body: bytes, headers: Headers, *, status: int = 200) -> None:
        self.status_code, self.body, self.background = status, body, None
        self.raw_headers = [*headers, (b"content-length", b"%d" % len(body))] if status != 304 else list(headers)


class Exchange:
    """What is known about one request and its answer so far."""

    __slots__ = (
        "_answer", "_send", "begun", "cached", "caller_tag", "exemplar", "head", "limiter", "request_id", "resources", "scope", "started", "status",
    )  # fmt: skip

    def __init__(self, scope: Scope, send: Send, resources: Resources) -> None:
        self.scope, self._send, self.resources = scope, send, resources
        self._answer: Answerer | None = scope.get("answer")
        self.started = time.perf_counter()
        self.head = Head(scope["headers"])
        offered = self.head.get(b"x-request-id")
        self.request_id = offered.decode() if offered is not None and _REQUEST_ID.fullmatch(offered) else str(uuid7())
        self.begun, self.status = False, 500
        # What the gates found out, for the log line: whose token, where it was charged, how many objects were cached.
        self.caller_tag: str | None = None
        self.limiter: str | None = None
        self.cached: int | None = None
        self.exemplar: dict[str, str] | None = None

    @property
    def route(self) -> str:
        return getattr(self.scope.get("route"), "path", "unmatched")

    @property
    def method(self) -> str:
        method: str = self.scope["method"]
        return method if method in _METHODS else "other"

    def note_charge(self, peeks: Peeks | None) -> None:
        """The principal was charged: in Redis, which also said what it holds, or in this process because Redis is away."""
        self.limiter, self.cached = ("degraded", 0) if peeks is None else ("shared", len(peeks))

    async def answer(self, response: Response) -> None:
        """Send a complete answer."""
        if self._answer is not None and not self.begun and self.scope["method"] != "HEAD":
            headers = self._signed(list(response.raw_headers))
            if self._answer(response.status_code, headers, bytes(response.body)):
                self.begun, self.status = True, response.status_code
                return
        await response(self.scope, _nothing_more, self.send)

    async def send(self, message: Message) -> None:
        """ASGI's way, for routes that are none of ours."""
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
            headers = list(message.get("headers", ()))
            own_policy = any(name == _CSP for name, _ in headers)  # the documentation's pages need scripts
            message["headers"] = self._signed(headers, _SECURITY[:1] if own_policy else _SECURITY)
        await self._send(message)

    def _signed(self, headers: list[tuple[bytes, bytes]], security: Headers = _SECURITY) -> list[tuple[bytes, bytes]]:
        headers += security
        headers.append((b"x-request-id", self.request_id.encode()))
        if self.resources.lifecycle.stopping.is_set():
            headers.append((b"connection", b"close"))
        return headers


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}
