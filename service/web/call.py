"""What an endpoint is given: the request with everything the gates found out, and the process' resources."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final
from urllib.parse import parse_qsl
from uuid import UUID

from starlette.requests import HTTPConnection

from service.answers import KeyedRequest
from service.errors import NotFound
from service.foundation.cache import Cache, Peeks
from service.foundation.db import Database
from service.web.auth import Caller
from service.web.etags import required_version
from service.web.exchange import Exchange
from service.web.resources import Resources

_CANONICAL: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Call(HTTPConnection):
    """A request past the gates. `caller` is verified; `keyed` exists where the route requires a key.

    `peeks`: what the limiter's pipeline saw of the route's objects; None once Redis failed this request.
    A connection by type, so that FastAPI knows the parameter; what the gates need of one is in `exchange`.
    """

    caller: Caller
    keyed: KeyedRequest
    peeks: Peeks | None

    def __init__(self, exchange: Exchange) -> None:
        self.scope = exchange.scope
        self.exchange = exchange
        self.resources: Resources = exchange.resources
        self.method: str = exchange.scope["method"]

    @property
    def db(self) -> Database:
        return self.resources.db

    @property
    def cache(self) -> Cache:
        return self.resources.cache

    @property
    def request_id(self) -> str:
        return self.exchange.request_id

    @property
    def retention(self) -> timedelta:
        """How long answers to keyed requests are kept, at least."""
        return timedelta(hours=self.resources.settings.orders.key_retention_h)

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The query's parameters, decoded, in order, repeated ones too."""
        return parse_qsl(self.scope["query_string"].decode("latin-1"), keep_blank_values=True)

    def required_version(self) -> int:
        """The version `If-Match` names. Raises `PreconditionRequired`, `InvalidPrecondition`."""
        return required_version([value.decode("latin-1") for value in self.exchange.head.all(b"if-match")])


def canonical_id(text: str) -> str:
    """A path id as PostgreSQL would write it. Raises `NotFound`: what is not a UUID names nothing."""
    if not _CANONICAL.fullmatch(text):
        raise NotFound
    return text.lower()


def parse_id(text: str) -> UUID:
    """As `canonical_id`, for a statement."""
    return UUID(canonical_id(text))
