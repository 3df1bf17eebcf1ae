"""The usual stack's read, one part more at each step (`PEER_STEP`): where its cost comes from. Nothing here is another peer."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final
from uuid import UUID

import asyncpg
import jwt
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from sqlalchemy import select
from starlette.middleware.base import BaseHTTPMiddleware

from bench.peers import STEPS, common, orm, usual

_ORDERS: Final = orm.Order.__table__
_LINES: Final = orm.OrderLine.__table__

_ORDER: Final[dict[str, Any]] = {
    "id": UUID(int=1), "customer_id": "reader-0", "status": "placed", "version": 1, "currency": "EUR", "total_minor": 100,
    "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
    "lines": [{"line_no": number, "sku": f"SKU-{number:04d}", "quantity": 1, "unit_price_minor": 50} for number in (1, 2)],
}  # fmt: skip


async def verified(authorization: Annotated[str | None, Header()] = None) -> str:
    try:
        return usual.keys.subject(authorization)
    except jwt.InvalidTokenError as error:
        raise HTTPException(401) from error


async def there(order_id: UUID) -> Any:
    return _ORDER | {"id": order_id}


async def for_whom(order_id: UUID, caller: Annotated[str, Depends(verified)]) -> Any:
    return _ORDER | {"id": order_id, "customer_id": caller}


async def within_quota(order_id: UUID, caller: usual.Caller) -> Any:
    return _ORDER | {"id": order_id, "customer_id": caller}


async def by_asyncpg(order_id: UUID, request: Request, caller: usual.Caller) -> Any:
    async with request.app.state.pool.acquire() as connection:
        order = await connection.fetchrow("SELECT * FROM orders WHERE id = $1", order_id)
        lines = await connection.fetch("SELECT * FROM order_line WHERE order_id = $1 ORDER BY line_no", order_id)
    return _of_caller(order and dict(order), [dict(line) for line in lines], caller)


async def by_core(order_id: UUID, session: usual.Session, caller: usual.Caller) -> Any:
    order = (await session.execute(select(_ORDERS).where(_ORDERS.c.id == order_id))).mappings().first()
    found = await session.execute(select(_LINES).where(_LINES.c.order_id == order_id).order_by(_LINES.c.line_no))
    return _of_caller(order, found.mappings().all(), caller)


def _of_caller(order: Any, lines: Sequence[Any], caller: str) -> Any:
    if not order or order["customer_id"] != caller:
        raise HTTPException(404)
    return {**order, "lines": lines}


_HANDLERS: Final = (there, for_whom, within_quota, by_asyncpg, by_core, usual.get, usual.get)


@asynccontextmanager
async def with_pool(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(common.database("postgresql"), min_size=common.POOL, max_size=common.POOL) as app.state.pool:
        yield


def build(step: int) -> FastAPI:
    """The application of one step, counted from 0."""
    app = FastAPI(lifespan=with_pool)
    app.get("/v1/orders/{order_id}", response_model=usual.OrderOut)(_HANDLERS[step])
    if step == len(STEPS) - 1:
        for middleware in (usual.trace_requests, usual.count_requests, usual.log_requests):
            app.add_middleware(BaseHTTPMiddleware, dispatch=middleware)
    return app


if __name__ == "__main__":
    common.serve(build(int(os.environ["PEER_STEP"])))
