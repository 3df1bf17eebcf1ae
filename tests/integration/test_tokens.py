"""Tokens that must not be accepted: one 401 text for all of them, no outbound call, and the scopes that are left of a good one.

The table is the Auth part of the attack list; what a JWT library lets pass unless told otherwise is marked in service/web/auth.py.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from service.dev.issuer import key_id, load_key
from service.settings import Settings
from tests.integration.waiting import until

STRANGER = ec.generate_private_key(ec.SECP256R1())


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Forge:
    """Signs what it is given with the issuer's key, well-formed or not."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.key = settings, load_key(Path(settings.app.home))
        now = int(time.time())
        self.now = now
        self.header: dict[str, Any] = {"alg": "ES256", "typ": "at+jwt", "kid": key_id(self.key)}
        self.claims: dict[str, Any] = {
            "iss": settings.auth.issuer,
            "aud": settings.auth.audience,
            "sub": "mallory",
            "role": "customer",
            "iat": now,
            "exp": now + 600,
            "jti": "j-1",
        }

    def raw(self, header: str, claims: str, *, key: ec.EllipticCurvePrivateKey | None = None) -> str:
        signed = f"{b64(header.encode('utf-8', 'surrogatepass'))}.{b64(claims.encode('utf-8', 'surrogatepass'))}"
        return f"{signed}.{b64(ECAlgorithm(ECAlgorithm.SHA256).sign(signed.encode(), key or self.key))}"

    def token(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Changes to header and claims; None removes."""
        parts = [self.header | (header or {}), self.claims | claims]
        cleaned = [{name: value for name, value in part.items() if value is not None} for part in parts]
        return self.raw(*(json.dumps(part) for part in cleaned))

    def text(self, **claims: str) -> str:
        """The claims as text with `claims` put in as raw JSON."""
        kept = {name: value for name, value in self.claims.items() if name not in claims}
        return json.dumps(kept)[:-1] + "".join(f", {json.dumps(name)}: {value}" for name, value in claims.items()) + "}"


@pytest.fixture
def forge(settings: Settings, app: Any) -> Forge:
    return Forge(settings)


async def ask(http: httpx.AsyncClient, token: str | bytes, path: str = "/v1/products/SKU-0001") -> httpx.Response:
    value = token if isinstance(token, bytes) else token.encode()
    return await http.get(path, headers={"authorization": b"Bearer " + value})


def public_pem(forge: Forge) -> bytes:
    return forge.key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def hs256_with_the_public_key(forge: Forge) -> str:
    signed = ".".join(b64(json.dumps(part).encode()) for part in (forge.header | {"alg": "HS256"}, forge.claims))
    return f"{signed}.{b64(hmac.digest(public_pem(forge), signed.encode(), 'sha256'))}"


def flipped(forge: Forge) -> str:
    token = forge.token()
    return token[:-10] + ("A" if token[-10] != "A" else "B") + token[-9:]


def other_claims(forge: Forge) -> str:
    head, _, signature = forge.token().split(".")
    return f"{head}.{b64(json.dumps(forge.claims | {'role': 'admin'}).encode())}.{signature}"


def zero_signature(forge: Forge) -> str:
    return forge.token().rsplit(".", 1)[0] + "." + b64(bytes(64))


HEADERS: dict[str, dict[str, Any]] = {
    "alg none": {"alg": "none"},
    "alg None": {"alg": None},
    "alg NONE": {"alg": "nOnE"},
    "alg not ours": {"alg": "ES384"},
    "alg of another key": {"alg": "RS256"},
    "alg list": {"alg": ["ES256"]},
    "typ missing": {"typ": None},
    "typ JWT (an ID token)": {"typ": "JWT"},
    "typ number": {"typ": 5},
    "typ list": {"typ": ["at+jwt"]},
    "unknown crit": {"crit": ["exp"]},
    "empty crit": {"crit": []},
    "b64 false": {"b64": False},
    "zip": {"zip": "DEF"},
    "jku": {"jku": "http://evil.example/jwks"},
    "x5u": {"x5u": "http://evil.example/cert"},
    "x5c": {"x5c": ["x"]},
    "jwk": {"jwk": {"kty": "EC"}},
    "kid missing": {"kid": None},
    "kid path": {"kid": "../../../../dev/null"},
    "kid sql": {"kid": "' OR '1'='1"},
    "kid 10 KB": {"kid": "k" * 10_000},
    "kid number": {"kid": 7},
    "kid list": {"kid": ["a"]},
    "kid unknown": {"kid": "nobody"},
}

CLAIMS: dict[str, Callable[[Forge], dict[str, Any]]] = {
    "expired by 31 s": lambda f: {"iat": f.now - 600, "exp": f.now - 31},
    "issued in the future": lambda f: {"iat": f.now + 120, "exp": f.now + 600},
    "not before": lambda f: {"nbf": f.now + 120},
    "10 years": lambda f: {"exp": f.now + 315_360_000},
    "lifetime 3,601 s": lambda f: {"exp": f.now + 3_601},
    "exp before iat": lambda f: {"iat": f.now + 20, "exp": f.now + 10},
    "exp text": lambda f: {"exp": str(f.now + 600)},
    "exp true": lambda f: {"exp": True},
    "exp list": lambda f: {"exp": [f.now]},
    "iat text": lambda f: {"iat": str(f.now)},
    "nbf text": lambda f: {"nbf": "soon"},
    "no exp": lambda f: {"exp": None},
    "no iat": lambda f: {"iat": None},
    "no iss": lambda f: {"iss": None},
    "no aud": lambda f: {"aud": None},
    "no sub": lambda f: {"sub": None},
    "no jti": lambda f: {"jti": None},
    "no role": lambda f: {"role": None},
    "other issuer": lambda f: {"iss": "http://evil.example"},
    "issuer prefix": lambda f: {"iss": f.settings.auth.issuer + ".evil.example"},
    "issuer with a slash": lambda f: {"iss": f.settings.auth.issuer + "/"},
    "issuer list": lambda f: {"iss": [f.settings.auth.issuer]},
    "other audience": lambda f: {"aud": "billing"},
    "audience prefix": lambda f: {"aud": "plumbline-staging"},
    "audience list without us": lambda f: {"aud": ["a", "b"]},
    "audience object": lambda f: {"aud": {"plumbline": 1}},
    "audience empty list": lambda f: {"aud": []},
    "sub empty": lambda f: {"sub": ""},
    "sub 256": lambda f: {"sub": "s" * 256},
    "sub number": lambda f: {"sub": 7},
    "sub control": lambda f: {"sub": "a\nb"},
    "sub nul": lambda f: {"sub": "a\0"},
    "role unknown": lambda f: {"role": "root"},
    "role list": lambda f: {"role": ["admin"]},
    "scope list": lambda f: {"scope": ["orders:read"]},
    "scope number": lambda f: {"scope": 1},
}

SHAPES: dict[str, Callable[[Forge], str | bytes]] = {
    "empty": lambda f: "",
    "two segments": lambda f: f.token().rsplit(".", 1)[0],
    "JWE": lambda f: "a.b.c.d.e",
    "dots": lambda f: "..",
    "not base64": lambda f: "!.!.!",
    "no signature": lambda f: f.token().rsplit(".", 1)[0] + ".",
    "flipped bit": flipped,
    "r = s = 0": zero_signature,
    "claims of another token": other_claims,
    "HS256 with the public key": hs256_with_the_public_key,
    "signed by a stranger": lambda f: f.raw(json.dumps(f.header), json.dumps(f.claims), key=STRANGER),
    "1 MB": lambda f: f.token()[:10] + "A" * 8_200,
    "not ASCII": lambda f: f.token().encode() + b"\xc3\xa9",
    "two tokens": lambda f: f"{f.token()} {f.token()}",
    "header is a list": lambda f: f.raw("[]", json.dumps(f.claims)),
    "header is not JSON": lambda f: f.raw("{", json.dumps(f.claims)),
    "claims are a list": lambda f: f.raw(json.dumps(f.header), "[]"),
    "claims are not JSON": lambda f: f.raw(json.dumps(f.header), "{"),
    "claims nested 900 deep": lambda f: f.raw(json.dumps(f.header), '{"a":' * 900 + "1" + "}" * 900),
    "duplicate claim": lambda f: f.raw(json.dumps(f.header), json.dumps(f.claims)[:-1] + ', "role": "admin"}'),
    "duplicate header": lambda f: f.raw(json.dumps(f.header)[:-1] + ', "alg": "ES256"}', json.dumps(f.claims)),
    "duplicate in depth": lambda f: f.raw(json.dumps(f.header), f.text(x='{"a": 1, "a": 2}')),
    "lone surrogate": lambda f: f.raw(json.dumps(f.header), f.text(sub='"\\ud800"')),
    "exp NaN": lambda f: f.raw(json.dumps(f.header), f.text(exp="NaN")),
    "exp Infinity": lambda f: f.raw(json.dumps(f.header), f.text(exp="Infinity")),
    "exp 1e400": lambda f: f.raw(json.dumps(f.header), f.text(exp="1e400")),
    "iat NaN": lambda f: f.raw(json.dumps(f.header), f.text(iat="NaN")),
    "5,000 digits": lambda f: f.raw(json.dumps(f.header), f.text(exp="9" * 5_000)),
    "raw invalid UTF-8": lambda f: b64(b'{"a":"\xff"}') + "." + f.token().split(".", 1)[1],
}


async def assert_refused(http: httpx.AsyncClient, token: str | bytes, what: str) -> None:
    answer = await ask(http, token)
    assert answer.status_code == 401, (what, answer.text)
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"', what
    assert answer.headers["cache-control"] == "no-store"
    constant = {name: value for name, value in answer.json().items() if name != "request_id"}
    assert constant == {"type": "/problems/unauthenticated", "title": "A valid access token is required", "status": 401, "code": "unauthenticated"}, (
        what
    )


@pytest.mark.parametrize("name", HEADERS)
async def test_a_header_that_is_not_ours(http: httpx.AsyncClient, forge: Forge, name: str) -> None:
    await assert_refused(http, forge.token(HEADERS[name]), name)


@pytest.mark.parametrize("name", CLAIMS)
async def test_claims_that_do_not_hold(http: httpx.AsyncClient, forge: Forge, name: str) -> None:
    await assert_refused(http, forge.token(**CLAIMS[name](forge)), name)


@pytest.mark.parametrize("name", SHAPES)
async def test_what_is_no_token_at_all(http: httpx.AsyncClient, forge: Forge, name: str) -> None:
    await assert_refused(http, SHAPES[name](forge), name)


async def test_the_forge_makes_tokens_that_are_accepted(http: httpx.AsyncClient, forge: Forge) -> None:
    good: list[dict[str, Any]] = [
        {},
        {"aud": ["billing", "plumbline"]},
        {"iat": forge.now - 601, "exp": forge.now - 25},
        {"iat": forge.now + 25, "exp": forge.now + 600},
        {"nbf": forge.now + 25},
        {"exp": forge.now + 3_600},
        {"sub": "s" * 255},
        {"sub": "Zo\u00eb"},
        {"scope": "catalog:read"},
        {"iat": forge.now + 0.5},
    ]
    for claims in good:
        assert (await ask(http, forge.token(**claims))).status_code == 200, claims
    assert (await ask(http, forge.token({"typ": "application/at+JWT"}))).status_code == 200
    assert (await http.get("/v1/products/SKU-0001", headers={"authorization": f"bearer {forge.token()}"})).status_code == 200


async def test_where_a_token_may_not_be(http: httpx.AsyncClient, forge: Forge) -> None:
    token, path = forge.token(), "/v1/products/SKU-0001"
    bare = await http.get(path)
    assert (bare.status_code, bare.headers["www-authenticate"]) == (401, "Bearer"), "no token: no error code (RFC 6750 §3.1)"
    for headers in (
        [("authorization", f"Bearer {token}")] * 2,
        [("authorization", f"Basic {token}")],
        [("authorization", token)],
        [("x-token", token)],
    ):
        assert (await http.get(path, headers=headers)).status_code == 401, headers[0][1][:10]
    assert (await http.get(f"{path}?access_token={token}")).status_code == 401
    assert (await http.get(path, headers={"cookie": f"token={token}"})).status_code == 401


async def test_no_token_makes_us_call_somebody(http: httpx.AsyncClient, forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    async def refuse(_: Any, request: httpx.Request) -> httpx.Response:
        called.append(str(request.url))
        raise httpx.ConnectError("no calls")

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", refuse)
    for header in ("jku", "x5u", "jwk", "kid sql", "kid unknown"):
        await ask(http, forge.token(HEADERS[header]))
    assert called == []


async def test_scopes_are_role_and_claim_together(http: httpx.AsyncClient, forge: Forge) -> None:
    cases = [
        ("customer", None, 200, 200, 403),
        ("customer", "catalog:read", 403, 200, 403),
        ("customer", "", 403, 403, 403),
        ("customer", "ops:admin", 403, 403, 403),
        ("customer", "orders:read ops:admin", 200, 403, 403),
        ("operator", None, 200, 200, 403),
        ("auditor", None, 200, 200, 403),
        ("admin", None, 200, 200, 200),
        ("admin", "orders:read", 200, 403, 403),
        ("admin", "ORDERS:READ", 403, 403, 403),
    ]
    for role, scope, *wanted in cases:
        token = forge.token(role=role, scope=scope)
        answers = [await ask(http, token, path) for path in ("/v1/orders", "/v1/products", "/v1/admin/overview")]
        assert [answer.status_code for answer in answers] == wanted, (role, scope)
        for answer, needed in zip(answers, ("orders:read", "catalog:read", "ops:admin"), strict=True):
            if answer.status_code == 403:
                assert answer.headers["www-authenticate"] == f'Bearer error="insufficient_scope", scope="{needed}"'


async def test_a_remembered_token_ends_with_its_expiry(http: httpx.AsyncClient, forge: Forge) -> None:
    token = forge.token(iat=forge.now - 600, exp=int(time.time()) - 27)
    assert (await ask(http, token)).status_code == 200, "within the leeway of 30 s"

    async def refused() -> bool:
        return (await ask(http, token)).status_code == 401

    await until(refused, "whatever was remembered, the token expires", deadline_s=20)


async def test_another_customer_gets_404_everywhere(login: Any) -> None:
    order = (await login("anna").place()).json()
    ben = login("ben")
    answers = [
        await ben.get(f"/orders/{order['id']}"),
        await ben.get(f"/orders/{order['id']}/timeline"),
        await ben.cancel(order),
        await login("adam", role="admin").get(f"/orders/{order['id']}"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 4
