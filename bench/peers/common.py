"""What every peer needs and none is about: addresses, the issuer's keys, the server's settings. Same for all of them."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from typing import Any, Final

import jwt
import structlog
import uvicorn
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from prometheus_client import Counter, Histogram

DATABASE: Final = os.environ["DATABASE_URL"]
REDIS: Final = os.environ["REDIS_URL"]
POOL: Final = 10  # as many connections as one API process of the service
RETENTION_H: Final = 72
PER_SECOND: Final = 1_000_000  # a quota with room: asked, never reached

requests = Counter("peer_requests_total", "Requests.", ["method", "route", "status"])
durations = Histogram("peer_seconds", "Durations.", ["method", "route"])
trace.set_tracer_provider(TracerProvider(sampler=ParentBased(TraceIdRatioBased(0.1))))
tracer: Final = trace.get_tracer("peer")
structlog.configure(processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso"), structlog.processors.JSONRenderer()])
log: Final = structlog.get_logger()


def database(driver: str) -> str:
    """The address with another driver in its scheme."""
    return DATABASE.replace("postgresql://", f"{driver}://")


class Keys:
    """The issuer's keys, fetched once; a token is verified on every request, as libraries do it."""

    def __init__(self) -> None:
        with urllib.request.urlopen(os.environ["APP_AUTH_JWKS_URL"], timeout=10) as answer:  # noqa: S310 - our own issuer
            self._keys = {key["kid"]: jwt.PyJWK(key) for key in json.load(answer)["keys"]}

    def subject(self, authorization: str | None) -> str:
        """`sub` of a bearer token. Raises `jwt.InvalidTokenError`."""
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer":
            raise jwt.InvalidTokenError("no bearer token")
        key = self._keys[jwt.get_unverified_header(token)["kid"]]
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=["ES256"], audience="plumbline", issuer=os.environ["APP_AUTH_ISSUER"])
        return str(claims["sub"])


def serve(app: Any) -> None:
    """Run an ASGI application as the floors are run."""
    config = uvicorn.Config(
        app, port=int(os.environ["HTTP_PORT"]), loop="uvloop", http="httptools", log_config=None, access_log=False,
        server_header=False, date_header=False, proxy_headers=False, backlog=2048,
    )  # fmt: skip
    sys.exit(uvicorn.Server(config).run())
