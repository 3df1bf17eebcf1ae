"""Django Ninja over Django's ORM: sync operations on ten threads of a WSGI server, persistent connections, three middlewares.

Under ASGI Django gives each request a thread of its own, and with it a new connection: slower, and not how it is run.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import django
import jwt
import redis
from django.conf import settings

from bench.peers import common

_at = urlsplit(common.DATABASE)
_engine = {
    "ENGINE": "django.db.backends.postgresql", "NAME": _at.path.strip("/"), "USER": _at.username, "PASSWORD": _at.password,
    "HOST": _at.hostname, "PORT": _at.port, "CONN_MAX_AGE": None, "OPTIONS": {},
}  # fmt: skip
_OURS = [f"{__name__}.{name}" for name in ("trace_requests", "count_requests", "log_requests")]
settings.configure(
    SECRET_KEY=secrets.token_hex(16), ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, DATABASES={"default": _engine}, USE_TZ=True, INSTALLED_APPS=[],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", *_OURS],
)  # fmt: skip
django.setup()

from django.core.wsgi import get_wsgi_application
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path
from ninja import Header, NinjaAPI, Schema
from ninja.errors import HttpError
from ninja.security import HttpBearer

Handler = Callable[[HttpRequest], HttpResponse]
quota = redis.from_url(common.REDIS)
keys = common.Keys()


class Product(models.Model):
    sku = models.TextField(primary_key=True)
    price_minor = models.BigIntegerField()
    currency = models.TextField()
    active = models.BooleanField()

    class Meta:
        app_label, db_table, managed = "bench", "product", False


class Order(models.Model):
    id = models.UUIDField(primary_key=True)
    customer_id = models.TextField()
    status = models.TextField()
    version = models.IntegerField()
    currency = models.TextField()
    total_minor = models.BigIntegerField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        app_label, db_table, managed = "bench", "orders", False


class OrderLine(models.Model):
    pk = models.CompositePrimaryKey("order_id", "line_no")
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    line_no = models.IntegerField()
    sku = models.TextField()
    quantity = models.IntegerField()
    unit_price_minor = models.BigIntegerField()

    class Meta:
        app_label, db_table, managed, ordering = "bench", "order_line", False, ["line_no"]


class IdempotencyKey(models.Model):
    pk = models.CompositePrimaryKey("principal", "key")
    principal = models.TextField()
    key = models.TextField()
    fingerprint = models.BinaryField()
    status = models.SmallIntegerField()
    headers = models.JSONField()
    body = models.BinaryField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        app_label, db_table, managed = "bench", "idempotency_key", False


class Outbox(models.Model):
    seq = models.BigAutoField(primary_key=True)
    event_id = models.UUIDField()
    aggregate_type = models.TextField()
    aggregate_id = models.TextField()
    version = models.IntegerField()
    type = models.TextField()
    topic = models.TextField()
    key = models.TextField()
    payload = models.BinaryField()
    headers = models.JSONField()
    created_at = models.DateTimeField()

    class Meta:
        app_label, db_table, managed = "bench", "outbox", False


class LineIn(Schema):
    sku: str
    quantity: int


class PlaceOrder(Schema):
    lines: list[LineIn]
    currency: str


class LineOut(Schema):
    line_no: int
    sku: str
    quantity: int
    unit_price_minor: int


class OrderOut(Schema):
    id: UUID
    customer_id: str
    status: str
    version: int
    currency: str
    total_minor: int
    created_at: datetime
    updated_at: datetime
    lines: list[LineOut]


class Bearer(HttpBearer):
    def authenticate(self, _request: HttpRequest, token: str) -> str | None:
        try:
            caller = keys.subject(f"Bearer {token}")
        except jwt.InvalidTokenError:
            return None
        bucket = f"peer:{caller}:{int(time.time())}"
        used, _ = quota.pipeline(transaction=False).incr(bucket).expire(bucket, 2).execute()
        if used > common.PER_SECOND:
            raise HttpError(429, "slow down")
        return caller


api = NinjaAPI(auth=Bearer())


def trace_requests(get_response: Handler) -> Handler:
    def middleware(request: HttpRequest) -> HttpResponse:
        with common.tracer.start_as_current_span(request.method or "") as span:
            response = get_response(request)
            span.set_attribute("http.response.status_code", response.status_code)
            return response

    return middleware


def count_requests(get_response: Handler) -> Handler:
    def middleware(request: HttpRequest) -> HttpResponse:
        begin = time.perf_counter()
        response = get_response(request)
        route = request.resolver_match.route if request.resolver_match else "unmatched"
        common.requests.labels(request.method, route, response.status_code).inc()
        common.durations.labels(request.method, route).observe(time.perf_counter() - begin)
        return response

    return middleware


def log_requests(get_response: Handler) -> Handler:
    def middleware(request: HttpRequest) -> HttpResponse:
        begin = time.perf_counter()
        response = get_response(request)
        common.log.info("request", method=request.method, path=request.path, status=response.status_code, seconds=time.perf_counter() - begin)
        return response

    return middleware


@api.post("/orders", response={201: OrderOut})
def place(request: Any, body: PlaceOrder, idempotency_key: Header[str]) -> Any:
    with transaction.atomic():
        known = IdempotencyKey.objects.filter(principal=request.auth, key=idempotency_key).first()
        if known is not None:
            return HttpResponse(bytes(known.body), status=known.status, content_type="application/json")
        products = Product.objects.in_bulk([line.sku for line in body.lines])
        if any(line.sku not in products or not products[line.sku].active or products[line.sku].currency != body.currency for line in body.lines):
            raise HttpError(422, "unknown product")
        now, total = datetime.now(UTC), sum(products[line.sku].price_minor * line.quantity for line in body.lines)
        order = Order.objects.create(
            id=uuid4(), customer_id=request.auth, status="placed", version=1, currency=body.currency, total_minor=total,
            created_at=now, updated_at=now,
        )  # fmt: skip
        OrderLine.objects.bulk_create(
            OrderLine(order=order, line_no=number, sku=line.sku, quantity=line.quantity, unit_price_minor=products[line.sku].price_minor)
            for number, line in enumerate(body.lines, start=1)
        )
        answer = OrderOut.from_orm(order).model_dump_json().encode()
        Outbox.objects.create(
            event_id=uuid4(), aggregate_type="order", aggregate_id=str(order.id), version=1, type="order.placed",
            topic="orders.events.v1", key=str(order.id), payload=answer, headers={}, created_at=now,
        )  # fmt: skip
        IdempotencyKey.objects.create(
            principal=request.auth, key=idempotency_key, fingerprint=hashlib.sha256(body.model_dump_json().encode()).digest(), status=201,
            headers={}, body=answer, created_at=now, expires_at=now + timedelta(hours=common.RETENTION_H),
        )  # fmt: skip
    return 201, order


@api.get("/orders/{order_id}", response=OrderOut)
def get(request: Any, order_id: UUID) -> Any:
    order = Order.objects.prefetch_related("lines").filter(id=order_id, customer_id=request.auth).first()
    if order is None:
        raise HttpError(404, "not found")
    return order


urlpatterns = [path("v1/", api.urls)]

if __name__ == "__main__":
    import os
    import sys

    import waitress

    sys.modules["bench.peers.ninja"] = sys.modules[__name__]
    waitress.serve(get_wsgi_application(), host="127.0.0.1", port=int(os.environ["HTTP_PORT"]), threads=common.POOL, _quiet=True)
