"""Any OAuth2 issuer by settings alone: RS256, other claims, other names for the roles, lists instead of text, `typ` JWT."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI
from jwt.algorithms import RSAAlgorithm

from service.settings import AuthSettings, SettingsError, load_settings
from service.web.auth import Authenticator
from service.web.jwks import KeySet
from tests.integration.problems import assert_problem

ISSUER, AUDIENCE = "https://id.example.com/realms/shop", "https://api.example.com/orders"
KEY = rsa.generate_private_key(65_537, 2_048)
ENVIRONMENT = {
    "APP_AUTH_ISSUER": ISSUER,
    "APP_AUTH_AUDIENCE": AUDIENCE,
    "APP_AUTH_JWKS_URL": f"{ISSUER}/protocol/certs",
    "APP_AUTH_ALGORITHMS": "RS256",
    "APP_AUTH_TOKEN_TYPES": "JWT",
    "APP_AUTH_ROLE_CLAIM": "realm_access.roles[]",
    "APP_AUTH_ROLE_NAMES": "shop-clerk=operator, shop-buyer=customer",
    "APP_AUTH_SCOPE_CLAIM": "https://example.com/permissions[]",
}


class Realm(httpx.AsyncBaseTransport):
    """The other issuer's keys."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == ENVIRONMENT["APP_AUTH_JWKS_URL"], "asked for keys elsewhere"
        public = json.loads(RSAAlgorithm.to_jwk(KEY.public_key())) | {"kid": "realm-1", "alg": "RS256", "use": "sig"}
        return httpx.Response(200, json={"keys": [public]}, request=request)


@pytest.fixture
def realm(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """The running API trusts the other issuer, because of its environment only."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    auth = load_settings().auth
    keys = KeySet(auth, client=httpx.AsyncClient(transport=Realm()))
    monkeypatch.setattr(app.state.resources, "authenticator", Authenticator(auth, keys))


def token(*, header: dict[str, Any] | None = None, **claims: Any) -> dict[str, str]:
    now = int(time.time())
    full = {
        "iss": ISSUER, "aud": ["account", AUDIENCE], "sub": "f:42:berta", "jti": "t-1", "iat": now, "exp": now + 300,
        "realm_access": {"roles": ["offline_access", "shop-buyer"]}, "azp": "web",
    } | claims  # fmt: skip
    signed = jwt.encode({k: v for k, v in full.items() if v is not None}, KEY, algorithm="RS256", headers={"kid": "realm-1", **(header or {})})
    return {"authorization": f"Bearer {signed}"}


async def allowed(http: httpx.AsyncClient, headers: dict[str, str]) -> list[int]:
    """Orders, catalogue, administration."""
    return [(await http.get(f"/v1/{path}", headers=headers)).status_code for path in ("orders", "products", "admin/overview")]


@pytest.mark.usefixtures("realm")
async def test_another_issuers_tokens_are_understood(http: httpx.AsyncClient) -> None:
    permissions = "https://example.com/permissions"
    assert await allowed(http, token()) == [200, 200, 403]
    assert await allowed(http, token(realm_access={"roles": ["shop-clerk"]})) == [200, 200, 403]
    assert await allowed(http, token(realm_access={"roles": ["admin"]})) == [200, 200, 200], "a name of ours needs no translation"
    assert await allowed(http, token(**{permissions: ["orders:read"]})) == [200, 403, 403]
    assert await allowed(http, token(**{permissions: ["ops:admin"]})) == [403, 403, 403], "a list narrows, it never widens"
    placed = await http.post(
        "/v1/orders", json={"lines": [{"sku": "SKU-0001", "quantity": 1}], "currency": "EUR"}, headers=token() | {"idempotency-key": "other-issuer"}
    )
    assert (placed.status_code, placed.json()["customer_id"]) == (201, "f:42:berta")


REFUSED: dict[str, dict[str, Any]] = {
    "two of our roles": {"realm_access": {"roles": ["shop-buyer", "shop-clerk"]}},
    "none of our roles": {"realm_access": {"roles": ["offline_access"]}},
    "roles as text": {"realm_access": {"roles": "shop-buyer"}},
    "roles with a number": {"realm_access": {"roles": ["shop-buyer", 7]}},
    "no roles": {"realm_access": {}},
    "access is a list": {"realm_access": ["shop-buyer"]},
    "the role where it was before": {"realm_access": None, "role": "admin"},
    "permissions as text": {"https://example.com/permissions": "orders:read"},
    "the issuer we had before": {"iss": "http://127.0.0.1:8103"},
    "another audience": {"aud": "account"},
    "type of the issuer before": {"header": {"typ": "at+jwt"}},
}


@pytest.mark.usefixtures("realm")
@pytest.mark.parametrize("name", REFUSED)
async def test_what_the_settings_do_not_say_is_refused(http: httpx.AsyncClient, name: str) -> None:
    assert_problem(await http.get("/v1/products", headers=token(**REFUSED[name])), "unauthenticated", name)


def test_role_names_that_are_none_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_AUTH_ROLE_NAMES", "shop-clerk")
    with pytest.raises(SettingsError, match="APP_AUTH_ROLE_NAMES must be issuer's name=role"):
        load_settings()
    assert AuthSettings(role_names="a=admin, b=customer").role_names == ("a=admin", "b=customer")
