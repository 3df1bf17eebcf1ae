"""The API process: one list of middleware, one list of routers, one lifespan.

`create_app(settings)` is pure wiring; everything it opens is opened and closed in `_lifespan`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__
from service.admin.routes import router as admin_router
from service.errors import DependencyUnavailable, ServiceError
from service.foundation import failpoints, metrics
from service.foundation.cache import Cache
from service.foundation.db import Database
from service.foundation.lifecycle import Lifecycle
from service.foundation.log import get_logger
from service.foundation.redis import RedisClient
from service.orders.placing import group_creates
from service.orders.routes import router as orders_router
from service.outbox import backlog_rows
from service.products.routes import router as products_router
from service.revision import REQUIRED_REVISION, current_revision
from service.settings import Settings
from service.web.admission import Admission
from service.web.auth import Authenticator
from service.web.docs import add_docs
from service.web.guard import Guard
from service.web.jwks import KeySet
from service.web.observe import Observe
from service.web.ratelimit import AddressShield, Limiter
from service.web.resources import Resources
from service.web.route import GatedRoute

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
_NO_KEYS: Final = "no signing keys could be loaded yet"


class Dispatch:
    """A gated route is found by method and path alone; everything else (404, 405, docs, lifespan) is the router's.

    The router asks every route of every method and copies the scope for each: 38 µs a request, this 3.
    """

    def __init__(self, router: APIRouter) -> None:
        self._router = router
        self._fixed: dict[tuple[str, str], GatedRoute] = {}
        self._patterns: dict[str, list[tuple[re.Pattern[str], GatedRoute]]] = {}
        for route in router.routes:
            if isinstance(route, GatedRoute):
                for method in route.methods or ():
                    self._fixed[method, route.path] = route
                    self._patterns.setdefault(method, []).append((route.path_regex, route))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        method, path = scope.get("method", ""), scope.get("path", "")
        if (route := self._fixed.get((method, path))) is not None:
            scope["path_params"], scope["route"] = {}, route
            return route.serve(scope, receive, send)
        for pattern, route in self._patterns.get(method, ()):
            if found := pattern.match(path):
                scope["path_params"], scope["route"] = found.groupdict(), route
                return route.serve(scope, receive, send)
        return self._router(scope, receive, send)


class Api(FastAPI):
    """FastAPI for its router and its document; a request goes through `MIDDLEWARE` and straight to the router.

    What FastAPI would wrap around (error pages, telemetry, exit stacks) is `Observe`'s or nobody's work here,
    and cost more than all gates together (docs/adr/0003).
    """

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The application as our server calls it: a coroutine less than `__call__`."""
        scope["app"] = self
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        return self.middleware_stack(scope, receive, send)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.enter(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """The list above, around the router."""
        stack: ASGIApp = Dispatch(self.router)
        for layer in reversed(self.user_middleware):
            stack = layer.cls(stack, *layer.args, **layer.kwargs)
        return stack


def create_app(settings: Settings, *, lifecycle: Lifecycle | None = None) -> Api:
    """The ASGI application; opens nothing until its lifespan starts."""
    life = lifecycle or Lifecycle()
    failpoints.arm(settings.app.failpoints)
    app = Api(
        title="Plumbline orders",
        version=__version__,
        description="Place, follow, cancel and ship orders. Errors are RFC 9457 problems.",
        middleware=[make(settings) for make in MIDDLEWARE],
        lifespan=_lifespan(settings, life),
        redirect_slashes=False,  # a redirect would name whatever Host the client sent
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    for router in ROUTERS:
        app.router.routes.extend(router.routes)  # flat: an included router costs a second match
    _require_policies(app)
    if not settings.production:
        add_docs(app)
    return app


def _require_policies(app: FastAPI) -> None:
    """Deny by default: a route that no gate guards is refused at start-up. Raises `TypeError` naming it."""
    for route in app.router.routes:
        if not isinstance(route, GatedRoute):
            raise TypeError(f"{getattr(route, 'path', route)} is not behind the gates: make its router with route_class=GatedRoute")


def _lifespan(settings: Settings, lifecycle: Lifecycle) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        resources = open_resources(settings, lifecycle)
        app.state.resources = resources
        await resources.db.open()
        await _require_schema(resources.db)
        lifecycle.set_ready("issuer", _NO_KEYS)  # until the watch has fetched them
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
    cache, db = Cache(redis, pool_size=settings.db.pool_size), Database(settings.db, application="orders-api")
    return Resources(
        settings=settings,
        lifecycle=lifecycle,
        db=db,
        creates=group_creates(db, size=settings.orders.group_size),
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
            lifecycle.set_ready("issuer", None if resources.keys.loaded else _NO_KEYS)
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
