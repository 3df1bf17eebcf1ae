"""Bad input on every route: the exact problem of the contract, nothing written, never a 5xx.

Each table says: what is wrong, and the `code` that answers it. What all routes share is generated from the
app's own route table, so a new route is attacked without being listed here.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from service.web.route import GatedRoute
from tests.integration.facts import Facts
from tests.integration.problems import assert_problem

ORDER = {"lines": [{"sku": "SKU-0001", "quantity": 1}], "currency": "EUR"}
GOOD_BODIES: dict[str, Any] = {"/v1/orders": ORDER, "/v1/products/{sku}": {"name": "x"}, "/v1/products/{sku}/restock": {"quantity": 1}}
ROLES = {"orders:fulfil": "operator", "orders:write": "customer", "orders:read": "customer", "catalog:read": "customer"}


@pytest.fixture(autouse=True)
async def nothing_written(facts: Facts) -> Any:
    """I3, for every test of this file: a refused request leaves no row anywhere."""
    before = await facts.counts()
    yield
    assert await facts.counts() == before


def gated(app: FastAPI) -> Iterator[tuple[str, GatedRoute]]:
    """(method, route) of everything behind a token."""
    for route in app.routes:
        if isinstance(route, GatedRoute):
            for method in sorted(route.methods or ()):
                yield method, route


async def send(http: httpx.AsyncClient, login: Any, method: str, route: GatedRoute, **changes: Any) -> httpx.Response:
    """A request to `route` that is good except for `changes` (headers, content, query, token)."""
    role = ROLES.get(route.policy.scope, "admin")
    path = route.path.replace("{order_id}", str(uuid4())).replace("{sku}", "SKU-0001").replace("{letter_id}", str(uuid4()))
    headers = login("mallory", role=changes.get("role", role)).headers if changes.get("token", True) else {}
    if route.policy.keyed:
        headers |= {"idempotency-key": str(uuid4())}
    if route.policy.if_match:
        headers |= {"if-match": '"1.1"'}
    content = json.dumps(GOOD_BODIES.get(route.path, {})).encode() if method != "GET" else b""
    if method != "GET":
        headers |= {"content-type": "application/json"}
    headers |= changes.get("headers", {})
    sent = {name: value for name, value in headers.items() if value is not None}
    return await http.request(method, path + changes.get("query", ""), headers=sent, content=changes.get("content", content))


EVERY_ROUTE: dict[str, tuple[dict[str, Any], str]] = {
    "no token": ({"token": False}, "unauthenticated"),
    "basic instead of bearer": ({"headers": {"authorization": "Basic YTpi"}}, "unauthenticated"),
    "token in the query": ({"token": False, "query": "?access_token=x"}, "unauthenticated"),
    "foreign host": ({"headers": {"host": "evil.example"}}, "unknown-host"),
    "host with a foreign port": ({"headers": {"host": "localhost:evil.example"}}, "unknown-host"),
    "host that is half an address": ({"headers": {"host": "localhost:["}}, "unknown-host"),
    "long URI": ({"query": "?x=" + "a" * 5_000}, "uri-too-long"),
    "large header": ({"headers": {"x-large": "a" * 20_000}}, "headers-too-large"),
    "many headers": ({"headers": {f"x-{n}": "a" for n in range(70)}}, "headers-too-large"),
}


@pytest.mark.parametrize("name", EVERY_ROUTE)
async def test_every_route(app: FastAPI, http: httpx.AsyncClient, login: Any, name: str) -> None:
    changes, code = EVERY_ROUTE[name]
    for method, route in gated(app):
        assert_problem(await send(http, login, method, route, **changes), code, (name, method, route.path))


async def test_a_stranger_is_refused_before_his_body_is_read(app: FastAPI, http: httpx.AsyncClient, login: Any) -> None:
    async def body() -> Any:
        yield b"{"
        raise AssertionError("the body of a stranger was read on")

    for method, route in gated(app):
        if method != "GET":
            assert_problem(await send(http, login, method, route, token=False, content=body()), "unauthenticated", route.path)


JSON_BODIES: dict[str, bytes] = {
    "empty": b"",
    "truncated": b'{"lines":[',
    "trailing comma": b'{"a":1,}',
    "two values": b"{}{}",
    "comment": b"{}//",
    "single quotes": b"{'a':1}",
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "1e400": b'{"a":1e400}',
    "invalid UTF-8": b'{"a":"\xff"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-7": b"+AHsAIgBhACIAOgAxAH0-",
    "BOM": b"\xef\xbb\xbf{}",
    "lone surrogate": b'{"a":"\\ud800"}',
    "surrogate in a name": b'{"\\udfff":1}',
    "U+0000": b'{"a":"\\u0000"}',
    "U+0000 in a name": b'{"\\u0000":1}',
    "raw U+0000": b'{"a":"\x00"}',
    "duplicate member": b'{"a":1,"a":2}',
    "duplicate in depth": b'{"lines":[{"sku":"A","sku":"B"}]}',
    "duplicate by escape": b'{"a":1,"\\u0061":2}',
    "depth 9": b"[" * 9 + b"]" * 9,
    "depth 900": b'{"a":' * 900 + b"1" + b"}" * 900,
    "depth 30,000": b"[" * 30_000,
    "5,000 digits": b'{"a":' + b"9" * 5_000 + b"}",
    "5,000 digits, and a second look": b'{"a:":1,"b":' + b"9" * 5_000 + b"}",
}
# Depth and duplicates are looked for in values that are JSON; 5,000 digits may be read as a number that the model refuses.
MODEL_MAY_REFUSE = {"5,000 digits"}


@pytest.mark.parametrize("name", JSON_BODIES)
async def test_json_that_two_parsers_could_read_differently(app: FastAPI, http: httpx.AsyncClient, login: Any, name: str) -> None:
    for method, route in gated(app):
        if route._body is None or (name == "empty" and not route._body.model_fields):
            continue
        answer = await send(http, login, method, route, content=JSON_BODIES[name])
        if name in MODEL_MAY_REFUSE and answer.status_code == 422:
            continue
        assert_problem(answer, "invalid-json", (name, route.path))
        assert "ud800" not in answer.text, "input is never echoed"


BODY_HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "too large": ({"content": b'{"note":"' + b"a" * 70_000 + b'"}'}, "too-large"),
    "too large by declaration": ({"headers": {"content-length": "10000000"}}, "too-large"),
    "too large by 5,000 digits": ({"headers": {"content-length": "9" * 5_000}}, "too-large"),
    "gzip": ({"content": gzip.compress(b"{}"), "headers": {"content-encoding": "gzip"}}, "unsupported-media-type"),
    "form": ({"headers": {"content-type": "application/x-www-form-urlencoded"}}, "unsupported-media-type"),
    "multipart": ({"headers": {"content-type": "multipart/form-data; boundary=x"}}, "unsupported-media-type"),
    "text": ({"headers": {"content-type": "text/plain"}}, "unsupported-media-type"),
    "json in utf-7": ({"headers": {"content-type": "application/json; charset=utf-7"}}, "unsupported-media-type"),
    "no type": ({"headers": {"content-type": None}}, "unsupported-media-type"),
}


@pytest.mark.parametrize("name", BODY_HEADERS)
async def test_bodies_that_are_not_small_plain_json(app: FastAPI, http: httpx.AsyncClient, login: Any, name: str) -> None:
    changes, code = BODY_HEADERS[name]
    for method, route in gated(app):
        if route._body is not None:
            assert_problem(await send(http, login, method, route, **changes), code, (name, route.path))


KEYS: dict[str, tuple[str | None, str]] = {
    "missing": (None, "idempotency-key-missing"),
    "empty": ("", "idempotency-key-invalid"),
    "long": ("k" * 256, "idempotency-key-invalid"),
    "5,000 characters": ("k" * 5_000, "idempotency-key-invalid"),
    "space inside": ("a b", "idempotency-key-invalid"),
    "quote not closed": ('"abc', "idempotency-key-invalid"),
    "not ASCII": ("k\u00e9y", "idempotency-key-invalid"),
    "control": ("a\x01b", "idempotency-key-invalid"),
    "empty quoted": ('""', "idempotency-key-invalid"),
}


@pytest.mark.parametrize("name", KEYS)
async def test_idempotency_keys(app: FastAPI, http: httpx.AsyncClient, login: Any, name: str) -> None:
    value, code = KEYS[name]
    header = None if value is None else value.encode("utf-8")
    for method, route in gated(app):
        if route.policy.keyed:
            assert_problem(await send(http, login, method, route, headers={"idempotency-key": header}), code, (name, route.path))


async def test_two_idempotency_keys_are_none(app: FastAPI, http: httpx.AsyncClient, login: Any) -> None:
    headers = [*login("mallory").headers.items(), ("content-type", "application/json"), ("idempotency-key", "a"), ("idempotency-key", "b")]
    answer = await http.post("/v1/orders", content=json.dumps(ORDER), headers=headers)
    assert_problem(answer, "idempotency-key-invalid", "two headers")


async def test_methods_and_paths_that_are_none(app: FastAPI, http: httpx.AsyncClient, login: Any) -> None:
    headers = login("mallory").headers
    for method, route in gated(app):
        path = route.path.replace("{order_id}", "x").replace("{sku}", "x").replace("{letter_id}", "x")
        for other in ("PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
            answer = await http.request(other, path, headers=headers | {"x-http-method-override": method})
            assert_problem(answer, "method-not-allowed", (other, path))
            assert method in answer.headers["allow"] or path.endswith("/orders") or "products/x" in path
    for path in (
        "/v1/orders%0a",
        "/v1/orders%0d",
        "/v1/products/SKU-0001%0a/availability",
        "/v1/orders;a=b",
        "/v1/ORDERS",
        "/v1/orders\\",
        "/",
        "/v1",
        "/v1/orders/",
        "/v1//orders",
        "/v2/orders",
        "/.env",
        "/metrics",
        "/health/live",
        "/v1/orders/x/y",
    ):
        answer = await http.get(path, headers=headers)
        assert_problem(answer, "not-found", path)
        assert "location" not in answer.headers, "no redirect to whatever Host was sent"
