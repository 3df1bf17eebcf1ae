"""What is refused before anything is parsed: foreign hosts, long URIs, large or ambiguous headers, the overflow.

The host list stops DNS rebinding and poisoned links; the limits stop memory from being spent on strangers;
a full process and a loud address are turned away before their token is looked at.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import HeadersTooLarge, MalformedRequest, UnknownHost, UriTooLong
from service.settings import HttpSettings

_WRITES: Final = frozenset({"POST", "PATCH"})


class Guard:
    """Raises the errors of the tree; `Observe` above answers them."""

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._app = app
        self._settings = settings
        self._hosts = frozenset(settings.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._check(scope)
            resources = scope["app"].state.resources
            resources.admission.look("critical" if scope["method"] in _WRITES else "normal")
            resources.shield.charge(scope)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = scope["headers"]
        if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > self._settings.uri_bytes:
            raise UriTooLong(f"at most {self._settings.uri_bytes} bytes")
        if len(headers) > self._settings.header_count or sum(len(n) + len(v) for n, v in headers) > self._settings.header_bytes:
            raise HeadersTooLarge(f"at most {self._settings.header_count} headers, {self._settings.header_bytes} bytes")
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1:
            raise MalformedRequest("exactly one Host header")
        if "*" not in self._hosts and _name(hosts[0].decode("latin-1")) not in self._hosts:
            raise UnknownHost


def _name(host: str) -> str:
    """The host without its port: `[::1]:8000` → `[::1]`."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()
