"""Redis: one client, short timeouts, and a breaker; losing it never costs an answer.

Nothing here is the truth (buckets, cached copies). After its first failure a request makes no further
Redis call, and while the breaker is open nobody does: a background PING finds out when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar

from hiredis import ReplyError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from service.foundation import metrics
from service.foundation.breaker import Breaker
from service.foundation.iam import PodIdentity
from service.foundation.log import get_logger
from service.foundation.redis_wire import Command, RedisWire
from service.foundation.tracing import client_span, recording
from service.settings import RedisSettings, secret_now

log = get_logger(__name__)
T = TypeVar("T")

_PROBE_S: Final = 0.5
# RuntimeError is uvloop's word for a transport that was closed a moment ago.
_FAILURES: Final = (RedisError, OSError, TimeoutError, RuntimeError)
_SPAN: Final = {"db.system.name": "redis"}


class RedisAway(Exception):
    """Redis did not answer (or is known not to): go on without it."""


class Script:
    """A Lua script and the name Redis knows it by."""

    def __init__(self, text: str) -> None:
        self.text, self.sha = text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class _Login(CredentialProvider):
    """User and password for one connection: from the URL as its secret is now, or an IAM token; empty when there is none."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings, self._identity = settings, PodIdentity()

    async def get_credentials_async(self) -> tuple[str, str] | tuple[()]:  # type: ignore[override]  # empty: greet without
        s = self._settings
        if s.auth == "iam":
            return s.iam_user, await self._identity.cache_token(s.iam_cache, s.iam_user)
        place = parse_url(secret_now("REDIS_URL", s.url))
        return (place.get("username") or "default", place["password"]) if place.get("password") else ()


class RedisClient:
    """redis-py with 0 retries and a bounded pool wait (its defaults can wait 20 s and more)."""

    def __init__(self, settings: RedisSettings) -> None:
        timeout_s = settings.timeout_ms / 1000
        login = _Login(settings)
        place: dict[str, Any] = {
            name: value for name, value in parse_url(settings.url.get_secret_value()).items() if name not in {"username", "password"}
        }
        pool = BlockingConnectionPool(
            **place,
            credential_provider=login,
            max_connections=settings.pool_size,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self.raw: Redis = Redis(connection_pool=pool)
        self._wire = RedisWire(settings.url.get_secret_value(), login=login.get_credentials_async, timeout_s=timeout_s)
        self.breaker = Breaker("redis", changed=metrics.show_breaker)
        metrics.show_breaker(self.breaker.name, "closed")
        self._probe: asyncio.Task[None] | None = None

    @property
    def away(self) -> bool:
        """True while nobody should call."""
        return self.breaker.state != "closed"

    async def call(self, work: Awaitable[T]) -> T:
        """Await one Redis call. Raises `RedisAway`; with an open breaker at once, without a socket."""
        if self.away:
            if asyncio.iscoroutine(work):
                work.close()
            raise RedisAway
        try:
            with client_span("redis call", _SPAN):
                answer = await work
        except _FAILURES as error:
            self._failed()
            raise RedisAway from error
        self.breaker.succeeded()
        return answer

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """One reply a command over the shared wire (error replies are `hiredis.ReplyError` values). Raises `RedisAway`."""
        if self.breaker.state != "closed":
            raise RedisAway
        try:
            if recording():
                with client_span("redis pipeline", _SPAN):
                    replies = await self._wire.pipeline(commands)
            else:
                replies = await self._wire.pipeline(commands)
        except (OSError, TimeoutError) as error:
            self._failed()
            raise RedisAway from error
        self.breaker.succeeded()
        return replies

    async def script(self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        """The script's answer over the shared wire; a Redis that has forgotten it is told again. Raises `RedisAway`, for an error reply too."""
        words = (len(keys), *keys, *arguments)
        (reply,) = await self.pipeline([("EVALSHA", script.sha, *words)])
        if isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT"):
            (reply,) = await self.pipeline([("EVAL", script.text, *words)])
        if isinstance(reply, ReplyError):
            self._failed()
            raise RedisAway from reply
        return reply

    async def close(self) -> None:
        """Close all connections."""
        if self._probe is not None:
            self._probe.cancel()
        with contextlib.suppress(RedisError, OSError):
            await self.raw.aclose(close_connection_pool=True)
        self._wire.close()

    def _failed(self) -> None:
        metrics.redis_errors.inc()
        self.breaker.failed()
        self._probe_if_open()

    def _probe_if_open(self) -> None:
        if self.away and (self._probe is None or self._probe.done()):
            log.warning("redis.away")
            self._probe = asyncio.create_task(self._probe_until_back(), name="redis-probe")

    async def _probe_until_back(self) -> None:
        while True:
            await asyncio.sleep(_PROBE_S)
            try:
                await self.raw.ping()
            except _FAILURES:
                continue
            self.breaker.succeeded()
            log.info("redis.back")
            return
