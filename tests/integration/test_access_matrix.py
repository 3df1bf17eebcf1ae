"""Every route × every principal, from the routes' own policies: who is let in, who is refused, and whose objects are nobody's.

A new route is tried here without being listed. `docs/access-matrix.md` shows the same table.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.responses import Response

import service.app
from service.foundation.db import Database
from service.settings import Settings
from service.web.call import Call
from service.web.route import GatedRoute, policy
from tests.integration.letters import parked, poison
from tests.integration.problems import assert_problem
from tests.integration.test_tokens import Forge
from tests.support.access import PRINCIPALS, expected, role_of, routes
from tests.support.clients import ApiClient

_BODIES: dict[str, Any] = {
    "/v1/orders": {"lines": [{"sku": "SKU-0001", "quantity": 1}], "currency": "EUR"},
    "/v1/products/{sku}": {"name": "Sturdy Lamp 1"},
    "/v1/products/{sku}/restock": {"quantity": 1},
}
_CODES = {"401": "unauthenticated", "403": "forbidden", "404": "not-found"}


class Door:
    """Sends a good request to any route as any principal; each gets an order and a dead letter of its own."""

    def __init__(self, http: httpx.AsyncClient, login: Callable[..., ApiClient], db: Database, forge: Forge) -> None:
        self.http, self.login, self.db, self.forge = http, login, db, forge

    def token(self, principal: str) -> dict[str, str]:
        now = self.forge.now
        if principal == "no token":
            return {}
        claims: dict[str, Any] = {"role": role_of(principal), "sub": f"matrix-{principal.replace(' ', '-')}"}
        claims |= {"iat": now - 600, "exp": now - 31} if principal == "expired" else {}
        claims |= {"aud": "billing"} if principal == "wrong audience" else {}
        return {"authorization": f"Bearer {self.forge.token(**claims)}"}

    async def knock(self, method: str, route: GatedRoute, principal: str, order: dict[str, Any]) -> httpx.Response:
        letter = await parked(self.db, "payments", poison()) if "{letter_id}" in route.path else None
        path = route.path.format(order_id=order["id"], sku="SKU-0001", letter_id=letter)
        # What a client says about itself outside the token is nothing.
        headers = self.token(principal) | {"content-type": "application/json", "x-role": "admin", "x-user": "matrix-customer"}
        if route.policy.keyed:
            headers["idempotency-key"] = str(uuid4())
        if route.policy.if_match:
            version = order["version"] if "{order_id}" in route.path else await self._product_version()
            headers["if-match"] = f'"{version}.1"'
        body = _BODIES.get(route.path, {})
        if method == "POST" and route.path == "/v1/orders" and principal == "operator":
            body = body | {"customer_id": "matrix-customer"}
        return await self.http.request(method, path, headers=headers, content=b"" if method == "GET" else json.dumps(body).encode())

    async def order(self) -> dict[str, Any]:
        """A fresh one of `customer`."""
        placed = await self.login("matrix-customer").place()
        assert placed.status_code == 201, placed.text
        found: dict[str, Any] = placed.json()
        return found

    async def _product_version(self) -> int:
        async with self.db.connection() as connection:
            return int(await connection.fetchval("SELECT version FROM product WHERE sku = 'SKU-0001'"))


@pytest.fixture
def door(http: httpx.AsyncClient, login: Any, db: Database, settings: Settings) -> Door:
    return Door(http, login, db, Forge(settings))


@pytest.mark.parametrize("principal", PRINCIPALS)
@pytest.mark.parametrize(("method", "route"), routes(), ids=lambda value: value if isinstance(value, str) else value.path)
async def test_every_route_for_every_principal(door: Door, method: str, route: GatedRoute, principal: str) -> None:
    wanted, order = expected(method, route, principal), await door.order()
    answer = await door.knock(method, route, principal, order)
    if wanted in _CODES:
        assert_problem(answer, _CODES[wanted], (method, route.path, principal))
    elif route.path.endswith("/ship"):
        assert_problem(answer, "invalid-transition", "let in, and told that it is not paid")
    elif route.path.endswith("/replay"):
        assert_problem(answer, "invalid-transition", "let in, and told that it has no envelope")
    else:
        assert answer.status_code == (route.status_code or 200), answer.text
    if wanted == "own":
        mine = "matrix-" + principal.replace(" ", "-")
        assert {item["customer_id"] for item in answer.json()["items"]} <= {mine}
    if wanted == "404":
        missing = await door.knock(method, route, principal, order | {"id": str(uuid4())})
        assert {**answer.json(), "request_id": ""} == {**missing.json(), "request_id": ""}, "somebody else's is as missing"


def test_the_table_has_every_kind_of_answer() -> None:
    cells = [expected(method, route, principal) for method, route in routes() for principal in PRINCIPALS]
    assert {"yes", "own", "401", "403", "404"} == set(cells), "the table lost a kind of answer"


async def _bare(call: Call) -> Response:
    return Response()


def test_a_route_without_a_policy_does_not_start(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    gated = APIRouter(route_class=GatedRoute)
    with pytest.raises(TypeError, match="_bare has no policy"):
        gated.get("/v1/bare")(_bare)
    ungated = APIRouter()

    @ungated.get("/v1/bare")
    async def bare() -> None:
        """Declared by FastAPI alone: no gate would be asked."""

    monkeypatch.setattr(service.app, "ROUTERS", (*service.app.ROUTERS, ungated))
    with pytest.raises(TypeError, match="/v1/bare is not behind the gates"):
        service.app.create_app(settings)


def test_an_endpoint_takes_nothing_that_no_gate_has_read() -> None:
    router = APIRouter(route_class=GatedRoute)

    async def sneaky(call: Call, token: str) -> Response:
        return Response()

    with pytest.raises(TypeError, match="not \\['token'\\]"):
        router.get("/v1/sneaky")(policy("orders:read")(sneaky))


def test_what_answers_without_a_token_is_the_document_and_nothing_in_production(app: FastAPI, settings: Settings) -> None:
    def bare(made: FastAPI) -> set[str]:
        return {getattr(route, "path", "") for route in made.router.routes if not isinstance(route, GatedRoute)}

    assert bare(app) == {"/openapi.json", "/docs", "/docs/start.js", "/docs/assets"}
    production = settings.model_copy(update={"app": settings.app.model_copy(update={"env": "production"})})
    assert bare(service.app.create_app(production)) == set()
