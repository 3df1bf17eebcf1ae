"""What one API process holds open; made in `service/app.py`, closed there."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.foundation.cache import Cache
from service.foundation.clock import Clock, SystemClock
from service.foundation.db import Database
from service.foundation.lifecycle import Lifecycle
from service.foundation.redis import RedisClient
from service.orders.placing import Creates
from service.settings import Settings
from service.web.admission import Admission
from service.web.auth import Authenticator
from service.web.jwks import KeySet
from service.web.ratelimit import AddressShield, Limiter


@dataclass(slots=True)
class Resources:
    """Shared by all requests of the process."""

    settings: Settings
    lifecycle: Lifecycle
    db: Database
    creates: Creates
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
