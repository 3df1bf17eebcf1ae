"""Who is calling: a verified JWT access token, its role, and the scopes that are left of it.

Everything PyJWT would let pass unless told otherwise is checked here: type, critical headers, duplicate
members, claim types, lifetime. Every failure is the same 401; the reason goes to the log only.
Tests: tests/integration/test_tokens.py (table of attacks).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt

from service.errors import Forbidden, Unauthenticated
from service.foundation.log import get_logger
from service.settings import AuthSettings
from service.web.jwks import KeySet

log = get_logger(__name__)

_CUSTOMER: Final = frozenset({"orders:read", "orders:write", "catalog:read"})
SCOPES: Final[dict[str, frozenset[str]]] = {
    "customer": _CUSTOMER,
    "operator": _CUSTOMER | {"orders:fulfil"},
    "auditor": frozenset({"orders:read", "catalog:read"}),
    "admin": frozenset({"orders:read", "catalog:read", "catalog:write", "ops:admin"}),
}
# Administrators run the machine; other people's orders are not part of that.
SEES_ALL: Final = frozenset({"operator", "auditor"})

_MAX_TOKEN_BYTES: Final = 8_192
_REFUSED_HEADERS: Final = frozenset({"crit", "jku", "jwk", "x5u", "x5c", "zip", "b64"})
_REQUIRED: Final = ("exp", "iat", "iss", "aud", "sub", "jti")
_CACHE_S: Final = 60.0
_CACHE_TOKENS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified principal: the token's subject, its role, and role ∩ scope claim."""

    subject: str
    role: str
    scopes: frozenset[str]
    # 16 hex digits of the subject's SHA-256: for Redis keys (a subject starting with "}" would break a hash tag) and logs.
    tag: str

    @property
    def sees_all(self) -> bool:
        """True for the roles that read every customer's orders."""
        return self.role in SEES_ALL

    def may_see(self, owner: str) -> bool:
        """True if an object of `owner` exists for this caller."""
        return self.sees_all or owner == self.subject

    def require(self, scope: str) -> None:
        """Raises `Forbidden` without `scope`."""
        if scope not in self.scopes:
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            raise Forbidden("the token does not allow this", headers={"www-authenticate": challenge})


class _Refused(Exception):
    """Why a token is not accepted; for the log."""


class Authenticator:
    """Verifies bearer tokens; verified ones are remembered for ≤ 60 s (verification costs ~100 µs)."""

    def __init__(self, settings: AuthSettings, keys: KeySet) -> None:
        self._settings = settings
        self._keys = keys
        self._types = frozenset(name.lower() for name in settings.token_types)
        self._role_names = dict(name.split("=", 1) for name in settings.role_names)
        self._verified: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()

    def remembered(self, values: Sequence[bytes]) -> Caller | None:
        """The caller of a token verified a moment ago: the whole of it for most requests."""
        if len(values) != 1 or values[0][:7].lower() != b"bearer ":
            return None
        known = self._verified.get(hashlib.sha256(values[0][7:]).digest())
        return known[1] if known is not None and known[0] > time.time() else None

    async def authenticate(self, values: Sequence[bytes]) -> Caller:
        """The caller named by the `Authorization` headers, from now on remembered.

        Raises `Unauthenticated`; `DependencyUnavailable` if no keys could ever be had.
        """
        if len(values) != 1:
            raise _unauthenticated("" if not values else "several Authorization headers")
        scheme, _, token = values[0].partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise _unauthenticated("not a bearer token")
        digest = hashlib.sha256(token).digest()
        try:
            caller, expires = await self._verify(token.decode("latin-1"))
        except (_Refused, jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _unauthenticated(f"{type(error).__name__}: {error}") from None
        self._remember(digest, caller, min(expires, time.time() + _CACHE_S))
        return caller

    def _remember(self, digest: bytes, caller: Caller, until: float) -> None:
        self._verified[digest] = (until, caller)
        if len(self._verified) > _CACHE_TOKENS:
            self._verified.popitem(last=False)

    async def _verify(self, token: str) -> tuple[Caller, float]:
        if len(token) > _MAX_TOKEN_BYTES or token.count(".") != 2:
            raise _Refused("size or shape")
        header = _decode_once(token.partition(".")[0])
        if str(header.get("typ")).lower() not in self._types or _REFUSED_HEADERS & header.keys():
            raise _Refused("type or header")
        key_id, algorithm = header.get("kid"), header.get("alg")
        if not isinstance(key_id, str) or len(key_id) > 255 or algorithm not in self._settings.algorithms:
            raise _Refused("key id or algorithm")
        _decode_once(token.split(".")[1])
        key = await self._keys.find(key_id)
        if key is None or key.algorithm_name != algorithm:
            raise _Refused("unknown key")
        claims = jwt.decode(
            token,
            key=key,
            algorithms=[algorithm],
            audience=self._settings.audience,
            issuer=self._settings.issuer,
            leeway=self._settings.leeway_s,
            options={"require": list(_REQUIRED), "strict_aud": False},
        )
        return self._caller(claims), float(claims["exp"])

    def _caller(self, claims: dict[str, Any]) -> Caller:
        for name in ("exp", "iat"):
            if type(claims[name]) not in (int, float):
                raise _Refused(f"{name} is not a number")
        if not 0 < claims["exp"] - claims["iat"] <= self._settings.token_lifetime_max_s:
            raise _Refused("lifetime")
        subject, scope = claims["sub"], _claim(claims, self._settings.scope_claim)
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255 or not subject.isprintable():
            raise _Refused("subject")
        role = self._role(claims)
        granted = SCOPES[role] if scope is None else SCOPES[role] & set(scope.split() if isinstance(scope, str) else scope)
        return Caller(subject, role, frozenset(granted), hashlib.sha256(subject.encode()).hexdigest()[:16])

    def _role(self, claims: dict[str, Any]) -> str:
        """The one role of ours that the token names; issuers mix in others of their own."""
        found = _claim(claims, self._settings.role_claim) or ()
        names = [found] if isinstance(found, str) else found
        roles = {self._role_names.get(name, name) for name in names} & SCOPES.keys()
        if len(roles) != 1:
            raise _Refused("not exactly one role")
        return roles.pop()


def _claim(claims: dict[str, Any], path: str) -> str | list[str] | None:
    """`role`: text; `scp[]`: a list of texts; `realm_access.roles[]`: one inside an object. None if it is not there."""
    name, kind = path.removesuffix("[]"), list if path.endswith("[]") else str
    value: Any = claims
    for step in [name] if name in claims else name.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if value is not None and not (isinstance(value, kind) and all(isinstance(part, str) for part in value)):
        raise _Refused(f"{name} is not of the configured type")
    found: str | list[str] | None = value
    return found


def _unauthenticated(reason: str) -> Unauthenticated:
    if reason:
        log.info("token.refused", reason=reason[:200])
    challenge = 'Bearer error="invalid_token"' if reason else "Bearer"
    return Unauthenticated(headers={"www-authenticate": challenge})


def _decode_once(segment: str) -> dict[str, Any]:
    """A token segment as an object in which no member appears twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise _Refused("duplicate member")
        return dict(pairs)

    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error as error:
        raise _Refused("encoding") from error
    value = json.loads(raw, object_pairs_hook=once)
    if not isinstance(value, dict):
        raise _Refused("not an object")
    return value
