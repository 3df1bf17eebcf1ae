"""One request and its answer: what names the request, what the gates found out, and the one way out.

Every answer carries the security headers and the request id, whoever made it. A complete answer goes to the server
in one piece (`service/web/server.py`), where it offers that; anything else takes ASGI's messages.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from starlette.responses import Response
from starlette.types import Message, Scope, Send
from uuid_utils import uuid7

from service.foundation.cache import Peeks
from service.web.head import Head, head_lines, head_pairs
from service.web.resources import Resources

# (status, head lines, body, closes=) to the wire, at once; False if the client does not read and the answer has to wait.
Answerer = Callable[..., bool]

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9-]{8,64}")
_CSP: Final = b"content-security-policy"
_SECURITY: Final = ((b"x-content-type-options", b"nosniff"), (_CSP, b"default-src 'none'; frame-ancestors 'none'"))
_SIGNATURE: Final = head_lines(_SECURITY)
_CLOSE: Final = b"connection: close\r\n"


class Reply(Response):
    """A complete answer whose head is written as it goes on the wire: `lines`, each ended; `content-length` is added.

    Whoever writes lines vouches for them: constants and numbers, or what `head_lines` has looked at.
    """

    def __init__(self, body: bytes, lines: bytes, *, status: int = 200) -> None:
        self.status_code, self.body, self.background = status, body, None
        self.lines = lines if status == 304 else b"%bcontent-length: %d\r\n" % (lines, len(body))

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:  # type: ignore[override]  # Starlette's is an attribute
        """As ASGI's messages want them."""
        return head_pairs(self.lines)


class Exchange:
    """What is known about one request and its answer so far."""

    __slots__ = (
        "_answer", "_send", "begun", "caller_tag", "charged", "head", "peeks",
        "request_id", "resources", "scope", "started", "status",
    )  # fmt: skip

    def __init__(self, scope: Scope, send: Send, resources: Resources) -> None:
        self.scope, self._send, self.resources = scope, send, resources
        self._answer: Answerer | None = scope.pop("answer", None)  # it holds the scope: a ring would be the collector's to find
        self.started = time.perf_counter()
        self.head = Head(scope["headers"])
        offered = self.head.get(b"x-request-id")
        self.request_id = offered.decode() if offered is not None and _REQUEST_ID.fullmatch(offered) else str(uuid7())
        self.begun, self.status = False, 500
        # What the gates found out: whose token, what is left (head lines; empty until charged), what was cached (None: Redis is away).
        self.caller_tag: str | None = None
        self.charged = b""
        self.peeks: Peeks | None = None

    def answer_at_once(self, response: Response) -> bool:
        """Send a complete answer in one write; False where the server cannot: then `answer`."""
        if self._answer is None or self.begun or self.scope["method"] == "HEAD":
            return False
        lines = response.lines if isinstance(response, Reply) else head_lines(response.raw_headers)
        closes = self.resources.lifecycle.stopping.is_set() or _CLOSE in lines
        signed = b"%b%b%bx-request-id: %b\r\n" % (lines, self.charged, _SIGNATURE, self.request_id.encode())
        if not self._answer(response.status_code, signed, response.body, closes=closes):
            return False
        self.begun, self.status = True, response.status_code
        return True

    async def answer(self, response: Response) -> None:
        """Send a complete answer."""
        if not self.answer_at_once(response):
            await response(self.scope, _nothing_more, self.send)

    async def send(self, message: Message) -> None:
        """ASGI's way, for routes that are none of ours."""
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
            headers = list(message.get("headers", ()))
            own_policy = any(name == _CSP for name, _ in headers)  # the documentation's pages need scripts
            headers += [*head_pairs(self.charged), *(_SECURITY[:1] if own_policy else _SECURITY), (b"x-request-id", self.request_id.encode())]
            if self.resources.lifecycle.stopping.is_set():
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        await self._send(message)


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}
