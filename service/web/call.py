"""What an endpoint is given: the request with everything the gates found out, and the process' resources."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from starlette.requests import Request

from service.answers import KeyedRequest
from service.errors import NotFound
from service.foundation.cache import Cache, Peeks
from service.foundation.clock import Clock, SystemClock
from service.foundation.db import Database
from service.foundation.lifecycle import Lifecycle
from service.foundation.redis import RedisClient
from service.settings import Settings
from service.web.admission import Admission
from service.web.auth import Authenticator, Caller
from service.web.etags import required_version
from service.web.jwks import KeySet
from service.web.ratelimit import AddressShield, Limiter


@dataclass(slots=True)
class Resources:
    """What one API process holds open; made in `service/app.py`, closed there."""

    settings: Settings
    lifecycle: Lifecycle
    db: Database
    redis: RedisClient
    cache: Cache
    limiter: Limiter
    shield: AddressShield
    admission: Admission
    keys: KeySet
    authenticator: Authenticator
    clock: Clock = field(default_factory=SystemClock)
    # Upper bound of unpublished events, sampled; at the cap creates are shed.
    backlog_rows: int = 0


class Call(Request):
    """A request past the gates. `caller` is verified; `keyed` exists where the route requires a key."""

    caller: Caller
    keyed: KeyedRequest
    # What the limiter's pipeline saw of the route's objects; None once Redis failed this request.
    peeks: Peeks | None

    @property
    def resources(self) -> Resources:
        resources: Resources = self.app.state.resources
        return resources

    @property
    def db(self) -> Database:
        return self.resources.db

    @property
    def cache(self) -> Cache:
        return self.resources.cache

    @property
    def request_id(self) -> str:
        return str(self.scope["state"]["request_id"])

    @property
    def retention(self) -> timedelta:
        """How long answers to keyed requests are kept, at least."""
        return timedelta(hours=self.resources.settings.orders.key_retention_h)

    def required_version(self) -> int:
        """The version `If-Match` names. Raises `PreconditionRequired`, `InvalidPrecondition`."""
        return required_version(self.headers.getlist("if-match"))


def parse_id(text: str) -> UUID:
    """A path id. Raises `NotFound`: what is not a UUID names nothing."""
    try:
        found = UUID(text)
    except ValueError as error:
        raise NotFound from error
    if str(found) != text.lower():
        raise NotFound
    return found
