"""`/openapi.json` and `/docs` with assets from this process: no page of ours asks anybody else for a script.

Off in production. The document declares every answer of every route (tests/integration/test_openapi.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import fastapi_offline
import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from service.web.problems import Problem

_ASSETS: Final = Path(fastapi_offline.__file__).with_name("static")
_CSP: Final = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
_PAGE: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Plumbline orders</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/docs/assets/swagger-ui.css"></head><body><div id="ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script></body></html>"""
_START: Final = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", deepLinking: true, persistAuthorization: true});'


def add_docs(app: FastAPI) -> None:
    """Add the three pages to `app`; they need no token."""
    headers = {"content-security-policy": _CSP, "cache-control": "no-cache"}
    document: dict[str, bytes] = {}

    async def openapi(_: Request) -> Response:
        if "json" not in document:
            document["json"] = orjson.dumps(describe(app))
        return Response(document["json"], media_type="application/json")

    async def page(_: Request) -> Response:
        return HTMLResponse(_PAGE, headers=headers)

    async def start(_: Request) -> Response:
        return Response(_START, media_type="text/javascript", headers=headers)

    app.add_route("/openapi.json", openapi, include_in_schema=False)
    app.add_route("/docs", page, include_in_schema=False)
    app.add_route("/docs/start.js", start, include_in_schema=False)
    app.mount("/docs/assets", StaticFiles(directory=_ASSETS))


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `app`'s gated routes."""
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=routes)
    parts = document.setdefault("components", {})
    parts["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    for operation in (op for path in document["paths"].values() for op in path.values()):
        _drop_undeclared(operation)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    parts["schemas"] |= problem.pop("$defs") | {"Problem": problem}
    for unused in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(unused, None)
    return document


def _drop_undeclared(operation: dict[str, Any]) -> None:
    """An error that only FastAPI declares (its own 422) cannot happen: ours are application/problem+json."""
    for status, answer in list(operation["responses"].items()):
        if status >= "400" and "application/problem+json" not in answer.get("content", {}):
            del operation["responses"][status]
