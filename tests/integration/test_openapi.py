"""The OpenAPI document is complete and true: 3.1, every route declares what it answers, /docs asks nobody else for a script."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator

from service.errors import problem_types
from service.web.route import GatedRoute

# What OpenAPI 3.1 §4.8 requires of the parts this document uses.
_NAMED = {"type": "object", "required": ["description"]}
_OPERATION = {
    "type": "object",
    "required": ["operationId", "responses", "security", "tags", "summary"],
    "properties": {
        "responses": {"type": "object", "minProperties": 1, "propertyNames": {"pattern": "^[1-5][0-9][0-9]$"}, "additionalProperties": _NAMED},
        "parameters": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "in", "schema"],
                "properties": {"in": {"enum": ["path", "query", "header"]}, "required": {"type": "boolean"}},
                "if": {"properties": {"in": {"const": "path"}}},
                "then": {"required": ["required"], "properties": {"required": {"const": True}}},
            },
        },
        "requestBody": {"type": "object", "required": ["content"]},
        "security": {"const": [{"bearer": []}]},
    },
}
_DOCUMENT = {
    "type": "object",
    "required": ["openapi", "info", "paths", "components"],
    "properties": {
        "openapi": {"pattern": "^3\\.1\\.[0-9]+$"},
        "info": {"type": "object", "required": ["title", "version"]},
        "paths": {
            "propertyNames": {"pattern": "^/v1/"},
            "additionalProperties": {"propertyNames": {"enum": ["get", "post", "patch"]}, "additionalProperties": _OPERATION},
        },
        "components": {"type": "object", "propertyNames": {"enum": ["schemas", "securitySchemes"]}},
    },
}


@pytest.fixture
async def document(http: httpx.AsyncClient) -> dict[str, Any]:
    answer = await http.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = json.loads(answer.content)
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


async def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    errors = [f"{error.json_path}: {error.message[:200]}" for error in Draft202012Validator(_DOCUMENT).iter_errors(document)]
    assert not errors
    for schema in (found["schema"] for found in walk(document["paths"]) if isinstance(found.get("schema"), dict)):
        Draft202012Validator.check_schema(schema)
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = {found["$ref"] for found in walk(document) if "$ref" in found}
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references - known == set()


async def test_every_route_is_described_with_its_parameters(app: FastAPI, document: dict[str, Any]) -> None:
    routes = {(method.lower(), route.path): route for route in app.routes if isinstance(route, GatedRoute) for method in route.methods or ()}
    assert set(routes) == {(method, path) for method, path, _ in operations(document)}
    for method, path, operation in operations(document):
        route, declared = routes[method, path], {(p["in"], p["name"]) for p in operation.get("parameters", [])}
        wanted = {("path", name) for name in re.findall(r"{(\w+)}", path)}
        wanted |= {("query", name) for name in (route._query.model_fields if route._query else ())}
        wanted |= {("header", "Idempotency-Key")} if route.policy.keyed else set()
        wanted |= {("header", "If-Match")} if route.policy.if_match else set()
        assert declared == wanted, (method, path)
        assert ("requestBody" in operation) == (route._body is not None)
        assert operation["x-scope"] == route.policy.scope


async def test_every_route_declares_every_status_it_can_answer(app: FastAPI, document: dict[str, Any]) -> None:
    for route in app.routes:
        if not isinstance(route, GatedRoute):
            continue
        (method,) = route.methods or ()
        declared = set(document["paths"][route.path][method.lower()]["responses"])
        wanted = {400, 401, 403, 414, 429, 431, 500, 503, route.status_code or 200}
        wanted |= {408, 413, 415, 422} if route._body else set()
        wanted |= {422} if route._query else set()
        wanted |= {409, 422} if route.policy.keyed else set()
        wanted |= {412, 428} if route.policy.if_match else set()
        wanted |= {404} if "{" in route.path else set()
        wanted |= {409} if route.path.endswith(("/replay", "/discard")) else set()
        wanted |= {304} if route.path in ("/v1/orders/{order_id}", "/v1/products/{sku}") and method == "GET" else set()
        assert declared == {str(status) for status in wanted}, (method, route.path)


async def test_problems_are_described_as_problems(document: dict[str, Any]) -> None:
    kinds = problem_types()
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status < "400":
                continue
            assert set(answer["content"]) == {"application/problem+json"}, (method, path, status)
            content = answer["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            for slug, example in content["examples"].items():
                assert (example["value"]["code"], example["value"]["status"]) == (slug, int(status))
                assert kinds[slug].status == int(status)


async def test_answers_are_what_the_document_says(login: Any, document: dict[str, Any]) -> None:
    anna, admin = login(f"schema-{uuid4()}"), login("adam", role="admin")
    order = await anna.place()
    asked = [
        (order, "/v1/orders", "post", "201"),
        (await anna.get(f"/orders/{order.json()['id']}"), "/v1/orders/{order_id}", "get", "200"),
        (await anna.get("/orders"), "/v1/orders", "get", "200"),
        (await anna.get("/products?limit=2"), "/v1/products", "get", "200"),
        (await anna.get("/products/SKU-0001"), "/v1/products/{sku}", "get", "200"),
        (await anna.get("/products/SKU-0001/availability"), "/v1/products/{sku}/availability", "get", "200"),
        (await anna.get(f"/orders/{order.json()['id']}/timeline"), "/v1/orders/{order_id}/timeline", "get", "200"),
        (await anna.cancel(order.json()), "/v1/orders/{order_id}/cancel", "post", "200"),
        (await admin.get("/admin/overview"), "/v1/admin/overview", "get", "200"),
        (await admin.get("/admin/dead-letters"), "/v1/admin/dead-letters", "get", "200"),
        (await anna.get(f"/orders/{uuid4()}"), "/v1/orders/{order_id}", "get", "404"),
    ]
    for answer, path, method, status in asked:
        assert str(answer.status_code) == status, answer.text
        (media,) = document["paths"][path][method]["responses"][status]["content"].values()
        Draft202012Validator(media["schema"] | {"components": document["components"]}).validate(answer.json())
    item = document["components"]["schemas"]["OrderOut"]
    assert set(order.json()) == set(item["properties"]) == set(item["required"]), "every member, always"


async def test_docs_are_served_from_here_alone(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert re.search(r"https?://", page.text) is None
    assert "'self'" in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assets = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(assets) >= 3
    for asset in assets:
        found = await http.get(asset)
        assert found.status_code == 200, asset
        assert found.content
