"""The usual stack's read, one part more at each step (`PEER_STEP`): where its cost comes from. Nothing here is another peer."""

from __future__ import annotations

import os
from typing import Annotated, Any, Final
from uuid import UUID

import jwt
from fastapi import Depends, FastAPI, Header, HTTPException
from starlette.middleware.base import BaseHTTPMiddleware

from bench.peers import STEPS, common, usual

_ORDER: Final[dict[str, Any]] = {
    "id": UUID(int=1), "customer_id": "reader-0", "status": "placed", "version": 1, "currency": "EUR", "total_minor": 100,
    "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
    "lines": [{"line_no": number, "sku": f"SKU-{number:04d}", "quantity": 1, "unit_price_minor": 50} for number in (1, 2)],
}  # fmt: skip


def verified(authorization: Annotated[str | None, Header()] = None) -> str:
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


def build(step: int) -> FastAPI:
    """The application of one step, counted from 0."""
    app = FastAPI()
    app.get("/v1/orders/{order_id}", response_model=usual.OrderOut)((there, for_whom, within_quota, usual.get, usual.get)[step])
    if step == len(STEPS) - 1:
        for middleware in (usual.trace_requests, usual.count_requests, usual.log_requests):
            app.add_middleware(BaseHTTPMiddleware, dispatch=middleware)
    return app


if __name__ == "__main__":
    common.serve(build(int(os.environ["PEER_STEP"])))
