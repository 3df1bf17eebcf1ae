"""The issuer's public keys: fetched from one pinned URL, cached, refreshed in the background.

A failed fetch never clears the cache: tokens verify for `jwks_stale_s` while the issuer is away.
An unknown key id causes at most one fetch per cooldown, whoever invents them.
Tests: tests/integration/test_jwks.py.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import httpx
import orjson
from jwt import InvalidKeyError, PyJWK, PyJWKError

from service.errors import DependencyUnavailable
from service.foundation.log import get_logger
from service.settings import AuthSettings

log = get_logger(__name__)

_MAX_BYTES: Final = 65_536
_MAX_KEYS: Final = 20
_TIMEOUT_S: Final = 2.0
_MIN_RSA_BITS: Final = 2048
_FAMILIES: Final = {"ES256": "EC", "RS256": "RSA", "PS256": "RSA", "EdDSA": "OKP"}


class KeySet:
    """Key id → verification key, as last seen at the issuer."""

    def __init__(self, settings: AuthSettings, *, client: httpx.AsyncClient | None = None) -> None:
        self._settings = settings
        # Certificates are loaded only where one has to be checked: that takes a twentieth of the time until the API is ready.
        self._client = client or httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False, verify=settings.jwks_url.startswith("https:"))
        self._keys: dict[str, PyJWK] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._lock = asyncio.Lock()
        self._refresh: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> bool:
        return bool(self._keys)

    async def find(self, key_id: str) -> PyJWK | None:
        """The key, or None if the issuer does not have it. Raises `DependencyUnavailable` if no usable keys were ever seen."""
        age = time.monotonic() - self._fetched_at
        if age > self._settings.jwks_stale_s or key_id not in self._keys:
            await self._fetch_unless_recent()
        elif age > self._settings.jwks_ttl_s and (self._refresh is None or self._refresh.done()):
            self._refresh = asyncio.create_task(self._fetch_unless_recent(), name="jwks-refresh")
        if time.monotonic() - self._fetched_at > self._settings.jwks_stale_s:
            raise DependencyUnavailable("the token issuer is not available")
        return self._keys.get(key_id)

    async def load(self) -> bool:
        """Fetch now; False if that failed (the old keys stay)."""
        async with self._lock:
            return await self._fetch()

    async def _fetch(self) -> bool:
        self._tried_at = time.monotonic()
        try:
            response = await self._client.get(self._settings.jwks_url)
            response.raise_for_status()
            if len(response.content) > _MAX_BYTES:
                raise ValueError("JWKS is too large")
            keys = _usable_keys(orjson.loads(response.content), self._settings.algorithms)
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("jwks.fetch_failed", error=type(error).__name__)
            return False
        if not keys:
            log.warning("jwks.no_usable_keys")
            return False
        self._keys, self._fetched_at = keys, time.monotonic()
        return True

    async def close(self) -> None:
        """Close the HTTP client."""
        if self._refresh is not None:
            self._refresh.cancel()
        await self._client.aclose()

    async def _fetch_unless_recent(self) -> None:
        cooldown = self._settings.jwks_cooldown_s if self._keys else 1.0
        # While somebody fetches, wait for what they get: a burst at start or rotation must not be refused.
        if not self._lock.locked() and time.monotonic() - self._tried_at < cooldown:
            return
        async with self._lock:
            if time.monotonic() - self._tried_at >= cooldown:
                await self._fetch()


def _usable_keys(document: Any, algorithms: tuple[str, ...]) -> dict[str, PyJWK]:
    found: dict[str, PyJWK] = {}
    for entry in document["keys"][:_MAX_KEYS]:
        algorithm = entry.get("alg") or {"EC": "ES256", "RSA": "RS256"}.get(entry.get("kty", ""), "")
        if algorithm not in algorithms or entry.get("kty") != _FAMILIES.get(algorithm) or entry.get("use", "sig") != "sig":
            continue
        try:
            key = PyJWK(entry, algorithm=algorithm)
        except (PyJWKError, InvalidKeyError, ValueError):
            continue
        if algorithm.startswith(("RS", "PS")) and key.key.key_size < _MIN_RSA_BITS:
            continue
        if isinstance(kid := entry.get("kid"), str):
            found[kid] = key
    return found
