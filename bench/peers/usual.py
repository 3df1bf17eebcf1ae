"""FastAPI as its documentation shows it: dependencies, an async ORM session a request, three `BaseHTTPMiddleware`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

import jwt
import redis.asyncio
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from starlette.middleware.base import BaseHTTPMiddleware

from bench.peers import common
from bench.peers.orm import IdempotencyKey, Order, OrderLine, Outbox, Product

engine = create_async_engine(common.database("postgresql+asyncpg"), pool_size=common.POOL, max_overflow=0)
session_of = async_sessionmaker(engine, expire_on_commit=False)
quota = redis.asyncio.from_url(common.REDIS)
keys = common.Keys()
app = FastAPI()


class LineIn(BaseModel):
    sku: str
    quantity: int = Field(ge=1, le=10_000)


class PlaceOrder(BaseModel):
    lines: list[LineIn] = Field(min_length=1, max_length=50)
    currency: str = Field(pattern="^[A-Z]{3}$")


class LineOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    line_no: int
    sku: str
    quantity: int
    unit_price_minor: int


class OrderOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: UUID
    customer_id: str
    status: str
    version: int
    currency: str
    total_minor: int
    created_at: datetime
    updated_at: datetime
    lines: list[LineOut]


async def get_session() -> AsyncIterator[AsyncSession]:
    async with session_of() as session:
        yield session


async def get_caller(authorization: Annotated[str | None, Header()] = None) -> str:
    try:
        caller = keys.subject(authorization)
    except jwt.InvalidTokenError as error:
        raise HTTPException(401) from error
    bucket = f"peer:{caller}:{int(time.time())}"
    async with quota.pipeline(transaction=False) as pipe:
        used, _ = await pipe.incr(bucket).expire(bucket, 2).execute()
    if used > common.PER_SECOND:
        raise HTTPException(429)
    return caller


Session = Annotated[AsyncSession, Depends(get_session)]
Caller = Annotated[str, Depends(get_caller)]


async def trace_requests(request: Request, call_next: Any) -> Any:
    with common.tracer.start_as_current_span(request.method) as span:
        response = await call_next(request)
        span.set_attribute("http.response.status_code", response.status_code)
        return response


async def count_requests(request: Request, call_next: Any) -> Any:
    begin = time.perf_counter()
    response = await call_next(request)
    route = getattr(request.scope.get("route"), "path", "unmatched")
    common.requests.labels(request.method, route, response.status_code).inc()
    common.durations.labels(request.method, route).observe(time.perf_counter() - begin)
    return response


async def log_requests(request: Request, call_next: Any) -> Any:
    begin = time.perf_counter()
    response = await call_next(request)
    common.log.info("request", method=request.method, path=request.url.path, status=response.status_code, seconds=time.perf_counter() - begin)
    return response


for middleware in (trace_requests, count_requests, log_requests):
    app.add_middleware(BaseHTTPMiddleware, dispatch=middleware)


@app.post("/v1/orders", status_code=201, response_model=OrderOut)
async def place(body: PlaceOrder, session: Session, caller: Caller, idempotency_key: Annotated[str, Header()]) -> Any:
    known = await session.get(IdempotencyKey, (caller, idempotency_key))
    if known is not None:
        return Response(known.body, status_code=known.status, media_type="application/json")
    found = await session.scalars(select(Product).where(Product.sku.in_([line.sku for line in body.lines])))
    products = {product.sku: product for product in found}
    if any(line.sku not in products or not products[line.sku].active or products[line.sku].currency != body.currency for line in body.lines):
        raise HTTPException(422)
    order = Order(
        id=uuid4(), customer_id=caller, status="placed", version=1, currency=body.currency,
        total_minor=sum(products[line.sku].price_minor * line.quantity for line in body.lines),
        lines=[
            OrderLine(line_no=number, sku=line.sku, quantity=line.quantity, unit_price_minor=products[line.sku].price_minor)
            for number, line in enumerate(body.lines, start=1)
        ],
    )  # fmt: skip
    session.add(order)
    await session.flush()
    await session.refresh(order, ["created_at", "updated_at"])
    answer = OrderOut.model_validate(order).model_dump_json().encode()
    session.add(
        Outbox(
            event_id=uuid4(), aggregate_type="order", aggregate_id=str(order.id), version=1, type="order.placed",
            topic="orders.events.v1", key=str(order.id), payload=answer, headers={},
        )
    )  # fmt: skip
    session.add(
        IdempotencyKey(
            principal=caller, key=idempotency_key, fingerprint=hashlib.sha256(body.model_dump_json().encode()).digest(), status=201,
            headers={}, body=answer, expires_at=datetime.now(UTC) + timedelta(hours=common.RETENTION_H),
        )
    )  # fmt: skip
    await session.commit()
    return order


@app.get("/v1/orders/{order_id}", response_model=OrderOut)
async def get(order_id: UUID, session: Session, caller: Caller) -> Any:
    order = await session.get(Order, order_id)
    if order is None or order.customer_id != caller:
        raise HTTPException(404)
    return order


if __name__ == "__main__":
    common.serve(app)
