"""The development token issuer: a small OAuth2 server on loopback, refused in production.

Serves discovery, JWKS and a client-credentials `/token`; the ES256 key is made once in `issuer.pem`
of the state folder, so tokens survive restarts. `plumbline token` signs with the same key.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import jwt
import orjson
import uuid_utils.compat as uuid_utils
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from service.settings import Settings

KEY_FILE: Final = "issuer.pem"
_MAX_TTL_S: Final = 3_600


def load_key(home: Path) -> ec.EllipticCurvePrivateKey:
    """The issuer's key, made on first use (0600). Raises `OSError` if the folder cannot be written."""
    path = home / KEY_FILE
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        # Two starters may race: the first complete file wins and both use it.
        draft = path.with_suffix(f".{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_bytes(pem)
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return loaded


def key_id(key: ec.EllipticCurvePrivateKey) -> str:
    """First 16 hex digits of the public key's SHA-256."""
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public)
    return digest.finalize().hex()[:16]


def mint(home: Path, *, sub: str, role: str, scope: str | None = None, ttl_s: int = _MAX_TTL_S, issuer: str = "", audience: str = "plumbline") -> str:
    """A signed access token. `issuer` defaults to APP_AUTH_ISSUER, then to the embedded one derived from HTTP_PORT."""
    key = load_key(home)
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": issuer or default_issuer(),
        "aud": audience,
        "sub": sub,
        "role": role,
        "iat": now,
        "exp": now + min(ttl_s, _MAX_TTL_S),
        "jti": str(uuid_utils.uuid7()),
    }
    if scope is not None:
        claims["scope"] = scope
    return jwt.encode(claims, key, algorithm="ES256", headers={"typ": "at+jwt", "kid": key_id(key)})


def default_issuer() -> str:
    """What the embedded API expects as `iss`."""
    return os.environ.get("APP_AUTH_ISSUER") or f"http://127.0.0.1:{int(os.environ.get('HTTP_PORT', '8000')) + 103}"


def create_issuer(settings: Settings) -> Starlette:
    """The ASGI application. Raises `SystemExit` in production."""
    if settings.production:
        raise SystemExit("the development issuer is refused when APP_ENV=production: use your identity provider")
    home, issuer = settings.app.home, settings.auth.issuer
    key = load_key(home)
    public = orjson.loads(ECAlgorithm.to_jwk(key.public_key()))
    jwks = {"keys": [public | {"kid": key_id(key), "alg": "ES256", "use": "sig"}]}

    async def discovery(_: Request) -> JSONResponse:
        return JSONResponse({
            "issuer": issuer, "jwks_uri": f"{issuer}/.well-known/jwks.json", "token_endpoint": f"{issuer}/token",
            "grant_types_supported": ["client_credentials"], "id_token_signing_alg_values_supported": ["ES256"],
        })  # fmt: skip

    async def keys(_: Request) -> JSONResponse:
        return JSONResponse(jwks)

    async def token(request: Request) -> JSONResponse:
        form = await request.form()
        if form.get("grant_type") != "client_credentials":
            return JSONResponse({"error": "unsupported_grant_type"}, status_code=400)
        subject, role = str(form.get("client_id", "")), str(form.get("role", "customer"))
        if not subject:
            return JSONResponse({"error": "invalid_client", "error_description": "name a client_id"}, status_code=401)
        scope = form.get("scope")
        signed = mint(home, sub=subject, role=role, scope=None if scope is None else str(scope), issuer=issuer, audience=settings.auth.audience)
        return JSONResponse({"access_token": signed, "token_type": "Bearer", "expires_in": _MAX_TTL_S}, headers={"cache-control": "no-store"})

    paths = {"/.well-known/openid-configuration": discovery, "/.well-known/jwks.json": keys}
    return Starlette(routes=[*(Route(path, page) for path, page in paths.items()), Route("/token", token, methods=["POST"])])
