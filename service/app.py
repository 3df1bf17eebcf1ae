"""The API process: one list of middleware, one list of routers, one lifespan.

`create_app(settings)` is pure wiring; everything it opens is opened and closed in `_lifespan`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from service import __version__
from service.admin.routes import router as admin_router
from service.errors import DependencyUnavailable, MalformedRequest, MethodNotAllowed, NotFound, ServiceError
from service.foundation import failpoints, metrics
from service.foundation.cache import Cache
from service.foundation.db import Database
from service.foundation.lifecycle import Lifecycle
from service.foundation.log import get_logger
from service.foundation.redis import RedisClient
from service.migrations import REQUIRED_REVISION, current_revision
from service.orders.routes import router as orders_router
from service.outbox import backlog_rows
from service.products.routes import router as products_router
from service.settings import Settings
from service.web.admission import Admission
from service.web.auth import Authenticator
from service.web.call import Resources
from service.web.docs import add_docs
from service.web.guard import Guard
from service.web.jwks import KeySet
from service.web.observe import Observe
from service.web.problems import problem_response
from service.web.ratelimit import AddressShield, Limiter

log = get_logger(__name__)

# Order matters: the first one sees the request first and the response last.
MIDDLEWARE: Final[tuple[Callable[[Settings], Middleware], ...]] = (
    lambda settings: Middleware(Observe),
    lambda settings: Middleware(Guard, settings=settings.http),
)
# Orders first: the hot routes are matched first.
ROUTERS: Final[tuple[APIRouter, ...]] = (orders_router, products_router, admin_router)

_SAMPLE_S: Final = 1.0
_DATABASE_GONE_S: Final = 300.0


def create_app(settings: Settings, *, lifecycle: Lifecycle | None = None) -> FastAPI:
    """The ASGI application; opens nothing until its lifespan starts."""
    life = lifecycle or Lifecycle()
    failpoints.arm(settings.app.failpoints)
    app = FastAPI(
        title="Plumbline orders",
        version=__version__,
        description="Place, follow, cancel and ship orders. Errors are RFC 9457 problems.",
        middleware=[make(settings) for make in MIDDLEWARE],
        lifespan=_lifespan(settings, life),
        redirect_slashes=False,  # a redirect would name whatever Host the client sent
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        exception_handlers={HTTPException: _http_exception},
    )
    for router in ROUTERS:
        app.router.routes.extend(router.routes)  # flat: an included router costs a second match
    if not settings.production:
        add_docs(app)
    return app


async def _http_exception(request: Request, error: Exception) -> Response:
    """What the router itself raises: no such path, no such method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    request_id = request.scope["state"]["request_id"]
    try:
        request.app.state.resources.shield.charge(request.scope)
    except ServiceError as refused:
        return problem_response(refused, request_id=request_id)
    kinds: dict[int, type[ServiceError]] = {404: NotFound, 405: MethodNotAllowed, 400: MalformedRequest}
    allow = {"allow": (getattr(error, "headers", None) or {}).get("Allow", "")} if status == 405 else {}
    kind = kinds.get(status, ServiceError)
    return problem_response(kind(headers=allow), request_id=request_id)


def _lifespan(settings: Settings, lifecycle: Lifecycle) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        resources = open_resources(settings, lifecycle)
        app.state.resources = resources
        await resources.db.open()
        await _require_schema(resources.db)
        watching = asyncio.create_task(_watch(resources), name="watch")
        lifecycle.begin()
        try:
            yield
        finally:
            watching.cancel()
            await resources.keys.close()
            await resources.redis.close()
            await resources.db.close()

    return lifespan


def open_resources(settings: Settings, lifecycle: Lifecycle) -> Resources:
    """What the process holds open (nothing is connected yet)."""
    keys, redis = KeySet(settings.auth), RedisClient(settings.redis)
    cache = Cache(redis, pool_size=settings.db.pool_size)
    return Resources(
        settings=settings,
        lifecycle=lifecycle,
        db=Database(settings.db, application="orders-api"),
        redis=redis,
        cache=cache,
        limiter=Limiter(settings, redis, cache),
        shield=AddressShield(settings),
        admission=Admission(settings.http.in_flight, wait_s=settings.http.admission_wait_ms / 1000),
        keys=keys,
        authenticator=Authenticator(settings.auth, keys),
    )


async def _require_schema(db: Database) -> None:
    async with db.connection() as connection:
        found = await current_revision(connection)
    if found is None or found < REQUIRED_REVISION:
        raise DependencyUnavailable(f"the schema is at {found or 'nothing'}, this code needs {REQUIRED_REVISION}: run `plumbline migrate`")


async def _watch(resources: Resources) -> None:
    """Once a second: heartbeat, backlog for the create's cap, keys for readiness."""
    lifecycle = resources.lifecycle
    while True:
        lifecycle.beat("api")
        try:
            if not resources.keys.loaded:
                await resources.keys.load()
            lifecycle.set_ready("issuer", None if resources.keys.loaded else "no signing keys could be loaded yet")
            async with resources.db.connection() as connection:
                resources.backlog_rows = await backlog_rows(connection)
        except ServiceError:
            metrics.caught.labels("watch").inc()
        lost = resources.db.lost_since
        gone = lost is not None and time.monotonic() - lost > _DATABASE_GONE_S
        lifecycle.set_ready("database", f"not available for {_DATABASE_GONE_S:g} s" if gone else None)
        await asyncio.sleep(_SAMPLE_S)


def degraded(resources: Resources) -> list[str]:
    """What works worse than it should: shown by readiness, which stays green."""
    parts = [(resources.db.lost_since is not None, "database"), (resources.redis.breaker.state != "closed", "redis")]
    return [name for bad, name in parts if bad]
