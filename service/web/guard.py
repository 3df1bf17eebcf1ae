"""What is refused before anything is parsed: foreign hosts, long URIs, large or ambiguous headers, the overflow.

The host list stops DNS rebinding and poisoned links; the limits stop memory from being spent on strangers;
a full process and a loud address are turned away before their token is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Sequence
from itertools import chain
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import HeadersTooLarge, MalformedRequest, UnknownHost, UriTooLong
from service.settings import HttpSettings
from service.web.exchange import Exchange
from service.web.head import Head

_WRITES: Final = frozenset({"POST", "PATCH"})
_SPELLINGS: Final = 100
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\\]+)(?::[0-9]{1,5})?")


class Guard:
    """Raises the errors of the tree; `Observe` above answers them."""

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._app = app
        self._settings = settings
        self._hosts = frozenset(settings.allowed_hosts)
        self._small = min(settings.uri_bytes, settings.header_bytes)
        self._seen: set[bytes | None] = set()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            exchange: Exchange = scope["exchange"]
            self._check(scope, exchange.head)
            exchange.resources.admission.look("critical" if scope["method"] in _WRITES else "normal")
            exchange.resources.shield.charge(scope)
        return self._app(scope, receive, send)  # a plain function: what it hands on is one coroutine less to make and to wake

    def _check(self, scope: Scope, head: Head) -> None:
        # Our server says how much came: most heads are so small that nobody needs to count.
        if scope.get("head_bytes", self._small + 1) > self._small:
            self._measure(scope)
        if len(scope["headers"]) > self._settings.header_count:
            raise HeadersTooLarge(f"at most {self._settings.header_count} headers")
        if head.repeats or head.get(b"host") not in self._seen:
            self._judge(head.all(b"host"))

    def _measure(self, scope: Scope) -> None:
        if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > self._settings.uri_bytes:
            raise UriTooLong(f"at most {self._settings.uri_bytes} bytes")
        if sum(map(len, chain.from_iterable(scope["headers"]))) > self._settings.header_bytes:
            raise HeadersTooLarge(f"at most {self._settings.header_bytes} bytes of headers")

    def _judge(self, hosts: Sequence[bytes]) -> None:
        """Refuse a foreign host; remember a good one as it was written (there are few spellings, and only good ones are kept)."""
        if len(hosts) != 1:
            raise MalformedRequest("exactly one Host header")
        host = hosts[0]
        if "*" not in self._hosts and _name(host.decode("latin-1")) not in self._hosts:
            raise UnknownHost
        if len(self._seen) < _SPELLINGS:
            self._seen.add(host)


def _name(host: str) -> str:
    """The host without its port: `[::1]:8000` → `[::1]`; empty for what is no host."""
    found = _HOST.fullmatch(host)
    return found[1].lower() if found else ""
