"""The arms: which requests go to which server. Each service arm is measured against a floor that does the same work.

`prepare` places the orders that are read, through the API, and checks by their traces that everything is on:
a limiter that is off, a missing log line or a missing cache hit would make the ratio a lie.
"""

from __future__ import annotations

import http.client
import json
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis as redis_py

from bench.errors import BenchError
from bench.loadgen import KEY_FIELD, request, write_frames
from bench.servers import Rig
from service.dev.issuer import mint

_CUSTOMERS: Final = 8
_ORDERS_EACH: Final = 25
_BODIES: Final = 64
_LINES: Final = 2
_PORTS: Final = {"api": 0, "floors": 1, "floors-again": 2}


@dataclass(frozen=True, slots=True)
class Arm:
    """One thing to measure: requests for one server, and the status every answer must have."""

    name: str
    label: str
    process: str
    port: int
    frames: Path
    status: int


@dataclass(frozen=True, slots=True)
class Placed:
    """An order that is read later."""

    order_id: str
    etag: str
    customer: int


def prepare(rig: Rig) -> list[Arm]:
    """All arms, ready to run."""
    issuer = rig.environment["APP_AUTH_ISSUER"]
    tokens = [mint(rig.home, sub=f"reader-{n}", role="customer", issuer=issuer) for n in range(_CUSTOMERS)]
    buyers = [mint(rig.home, sub=f"buyer-{n}", role="customer", issuer=issuer) for n in range(_CUSTOMERS)]
    placed = _place_orders(rig, tokens)
    _fill_floor_cache(rig, placed)
    bodies, key = _bodies(), ("idempotency-key", KEY_FIELD)
    reads = [(tokens[o.customer], f"/v1/orders/{o.order_id}", o.etag) for o in placed]
    # A floor is sent the head that the service is sent: to read a token's 400 bytes costs any server.
    places, creates = (
        [request("POST", path, token=buyers[n % _CUSTOMERS], body=body, headers=[key]) for n, body in enumerate(bodies)]
        for path in ("/w0", "/v1/orders")
    )
    p1, g1 = ([request("GET", f"/{floor}/{o.order_id}", token=tokens[o.customer]) for o in placed] for floor in ("p1", "g1"))
    lists = [request("GET", f"/list/reader-{n}", token=token) for n, token in enumerate(tokens)]
    gets = [request("GET", path, token=token) for token, path, _ in reads]
    matches = [request("GET", path, token=token, headers=[("if-none-match", etag)]) for token, path, etag in reads]
    table = (
        ("w0", "floor: raw ASGI + one statement", "floors", places, 201),
        ("w0_again", "  the same floor in a second process", "floors-again", places, 201),
        ("create_all_on", "POST order, everything on", "api", creates, 201),
        ("p1", "floor: raw ASGI + point read", "floors", p1, 200),
        ("g1", "floor: raw ASGI + Redis read", "floors", g1, 200),
        ("get_cached_all_on", "GET order, cached, everything on", "api", gets, 200),
        ("get_304", "GET order, 304, everything on", "api", matches, 304),
        ("list_raw", "floor: raw ASGI list of 20", "floors", lists, 200),
        ("list_20", "GET list of 20, everything on", "api", [request("GET", "/v1/orders?limit=20", token=token) for token in tokens], 200),
    )
    return [
        Arm(name, label, process, rig.base_port + _PORTS[process], write_frames(rig.home / f"{name}.frames", requests), status)
        for name, label, process, requests, status in table
    ]


def missing_features(rig: Rig) -> list[str]:
    """What "everything on" promises and this build does not show: such a ratio is marked, not celebrated."""
    token = mint(rig.home, sub="reader-0", role="customer", issuer=rig.environment["APP_AUTH_ISSUER"])
    _, page, _ = _call(rig, "GET", "/v1/orders?limit=1", token)
    path = f"/v1/orders/{page['items'][0]['id']}"
    log = rig.home / "logs" / "api.log"
    client = redis_py.Redis.from_url(rig.redis.url)
    lines = log.read_bytes().count(b"\n")
    calls = int(client.info("stats")["total_commands_processed"])
    for _ in range(5):
        _, _, headers = _call(rig, "GET", path, token)
    calls = int(client.info("stats")["total_commands_processed"]) - calls - 1
    cached = any(client.scan_iter("*order*"))
    client.close()
    found = {
        "limiter (no RateLimit header)": "ratelimit" in headers,
        "limiter or cache in Redis (fewer than one call a request)": calls >= 5,
        "cache (no order key in Redis)": cached,
        "access log (no line a request)": _grows(log, lines + 5),
    }
    return [name for name, there in found.items() if not there]


def _grows(log: Path, lines: int) -> bool:
    """Lines are written by a thread of their own, a moment later."""
    deadline = time.monotonic() + 3
    while log.read_bytes().count(b"\n") < lines:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def place_once(rig: Rig) -> None:
    """One order, by itself, on a connection of its own. Raises `BenchError` unless it was created."""
    token = mint(rig.home, sub="buyer-0", role="customer", issuer=rig.environment["APP_AUTH_ISSUER"])
    status, answer, _ = _call(rig, "POST", "/v1/orders", token, random.choice(_bodies()))
    if status != 201:
        raise BenchError(f"an order was not created: {status} {answer}")


def _bodies() -> list[bytes]:
    rng = random.Random(7)
    made = []
    for _ in range(_BODIES):
        skus = rng.sample(range(3, 1001), _LINES)
        lines = [{"sku": f"SKU-{sku:04d}", "quantity": rng.randint(1, 3)} for sku in skus]
        made.append(json.dumps({"lines": lines, "currency": "EUR"}).encode())
    return made


def _place_orders(rig: Rig, tokens: Sequence[str]) -> list[Placed]:
    placed = []
    for number, body in zip(range(_CUSTOMERS * _ORDERS_EACH), _bodies() * _ORDERS_EACH, strict=False):
        customer = number % _CUSTOMERS
        status, order, headers = _call(rig, "POST", "/v1/orders", tokens[customer], body)
        if status != 201:
            raise BenchError(f"an order to read could not be placed: {status} {order}")
        placed.append(Placed(order["id"], headers["etag"], customer))
    return placed


def _fill_floor_cache(rig: Rig, placed: Sequence[Placed]) -> None:
    body = json.dumps({"id": str(uuid.uuid4()), "note": "x" * 380}).encode()
    client = redis_py.Redis.from_url(rig.redis.url)
    client.mset({f"bench:{order.order_id}": body for order in placed})
    client.close()


def _call(rig: Rig, method: str, path: str, token: str, body: bytes = b"") -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", rig.base_port, timeout=10)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    if method == "POST":
        headers["Idempotency-Key"] = str(uuid.uuid4())
    try:
        connection.request(method, path, body=body or None, headers=headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read()), {name.lower(): value for name, value in response.getheaders()}
    finally:
        connection.close()
