"""In the way of the full-stack templates: SQLModel-style sync sessions, plain `def` routes in the thread pool, psycopg."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

import jwt
import redis
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import Response
from sqlalchemy import create_engine
from sqlmodel import Session as SqlSession
from sqlmodel import select
from starlette.middleware.base import BaseHTTPMiddleware

from bench.peers import common
from bench.peers.orm import IdempotencyKey, Order, OrderLine, Outbox, Product
from bench.peers.usual import OrderOut, PlaceOrder, count_requests, log_requests, trace_requests

engine = create_engine(common.database("postgresql+psycopg"), pool_size=common.POOL, max_overflow=0)
quota = redis.from_url(common.REDIS)
keys = common.Keys()
app = FastAPI()
for middleware in (trace_requests, count_requests, log_requests):
    app.add_middleware(BaseHTTPMiddleware, dispatch=middleware)


def get_session() -> Iterator[SqlSession]:
    with SqlSession(engine) as session:
        yield session


def get_caller(authorization: Annotated[str | None, Header()] = None) -> str:
    try:
        caller = keys.subject(authorization)
    except jwt.InvalidTokenError as error:
        raise HTTPException(401) from error
    bucket = f"peer:{caller}:{int(time.time())}"
    used, _ = quota.pipeline(transaction=False).incr(bucket).expire(bucket, 2).execute()
    if used > common.PER_SECOND:
        raise HTTPException(429)
    return caller


Session = Annotated[SqlSession, Depends(get_session)]
Caller = Annotated[str, Depends(get_caller)]


@app.post("/v1/orders", status_code=201, response_model=OrderOut)
def place(body: PlaceOrder, session: Session, caller: Caller, idempotency_key: Annotated[str, Header()]) -> Any:
    known = session.get(IdempotencyKey, (caller, idempotency_key))
    if known is not None:
        return Response(known.body, status_code=known.status, media_type="application/json")
    found = session.exec(select(Product).where(Product.sku.in_([line.sku for line in body.lines])))
    products = {product.sku: product for product in found}
    if any(line.sku not in products or not products[line.sku].active or products[line.sku].currency != body.currency for line in body.lines):
        raise HTTPException(422)
    lines = [
        OrderLine(line_no=number, sku=line.sku, quantity=line.quantity, unit_price_minor=products[line.sku].price_minor)
        for number, line in enumerate(body.lines, start=1)
    ]
    total = sum(line.unit_price_minor * line.quantity for line in lines)
    order = Order(id=uuid4(), customer_id=caller, status="placed", version=1, currency=body.currency, total_minor=total, lines=lines)
    session.add(order)
    session.flush()
    session.refresh(order)
    answer = OrderOut.model_validate(order).model_dump_json().encode()
    key, expires = str(order.id), datetime.now(UTC) + timedelta(hours=common.RETENTION_H)
    digest = hashlib.sha256(body.model_dump_json().encode()).digest()
    session.add(
        Outbox(
            event_id=uuid4(), aggregate_type="order", aggregate_id=key, version=1, type="order.placed",
            topic="orders.events.v1", key=key, payload=answer, headers={},
        )
    )  # fmt: skip
    session.add(
        IdempotencyKey(
            principal=caller, key=idempotency_key, fingerprint=digest, status=201, headers={}, body=answer, expires_at=expires,
        )
    )  # fmt: skip
    session.commit()
    session.refresh(order)
    return order


@app.get("/v1/orders/{order_id}", response_model=OrderOut)
def get(order_id: UUID, session: Session, caller: Caller) -> Any:
    order = session.get(Order, order_id)
    if order is None or order.customer_id != caller:
        raise HTTPException(404)
    return order


if __name__ == "__main__":
    common.serve(app)
