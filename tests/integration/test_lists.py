"""Keyset pages: every pre-existing row once whatever is inserted meanwhile (G4), and cursors that cannot be abused."""

from __future__ import annotations

import base64
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.web.paging import encode_cursor
from tests.integration.facts import Facts


async def walk(who: Any, path: str, *, between: Any = None) -> list[dict[str, Any]]:
    """Every page from `path` on, by its Link headers; `between` is awaited after each page."""
    found: list[dict[str, Any]] = []
    while path:
        page = await who.get(path)
        assert page.status_code == 200, page.text
        found += page.json()["items"]
        link = page.headers.get("link")
        assert (link is None) == (page.json()["next_cursor"] is None)
        path = "" if link is None else link[1 : link.index(">")].removeprefix("/v1")
        if link is not None:
            assert link.endswith('>; rel="next"')
        if between is not None:
            await between()
    return found


async def test_walking_under_inserts_returns_every_earlier_row_once(login: Any) -> None:
    anna = login(f"pages-{uuid4()}")
    before = [(await anna.place()).json()["id"] for _ in range(23)]
    meanwhile: list[str] = []

    async def insert() -> None:
        meanwhile.append((await anna.place()).json()["id"])

    items = await walk(anna, "/orders?limit=5", between=insert)
    ids = [item["id"] for item in items]
    assert len(meanwhile) >= 5
    assert ids == sorted(before, reverse=True), "G4: newest first, each once, and nothing newer than the first page"
    assert [item["id"] for item in await walk(anna, "/orders?limit=100")] == sorted(before + meanwhile, reverse=True)


async def test_an_exact_last_page_has_no_next(login: Any) -> None:
    anna = login(f"exact-{uuid4()}")
    for _ in range(4):
        await anna.place()
    assert [len((await anna.get(f"/orders?limit={limit}")).json()["items"]) for limit in (1, 3, 4, 5)] == [1, 3, 4, 4]
    assert (await anna.get("/orders?limit=4")).json()["next_cursor"] is None
    assert (await login(f"nobody-{uuid4()}").get("/orders")).json() == {"items": [], "next_cursor": None}


async def test_a_status_filter_keeps_its_place_in_the_link(login: Any) -> None:
    anna = login(f"filter-{uuid4()}")
    orders = [(await anna.place()).json() for _ in range(6)]
    for order in orders[::2]:
        assert (await anna.cancel(order)).status_code == 200
    cancelled = await walk(anna, "/orders?status=cancelled&limit=1")
    assert [item["id"] for item in cancelled] == [order["id"] for order in reversed(orders[::2])]
    assert {item["status"] for item in cancelled} == {"cancelled"}
    assert len(await walk(anna, "/orders?status=placed&limit=2")) == 3


async def test_who_sees_whose_orders(login: Any) -> None:
    anna, ben = f"list-a-{uuid4()}", f"list-b-{uuid4()}"
    for name in (anna, ben):
        await login(name).place()
    assert {item["customer_id"] for item in await walk(login(anna), "/orders")} == {anna}
    assert (await login(anna).get(f"/orders?customer_id={anna}")).status_code == 200
    foreign = await login(anna).get(f"/orders?customer_id={ben}")
    assert (foreign.status_code, foreign.json()["code"]) == (403, "forbidden")
    assert (await login("adam", role="admin").get(f"/orders?customer_id={ben}")).status_code == 403
    for role in ("operator", "auditor"):
        who = login(role, role=role)
        assert {item["customer_id"] for item in await walk(who, f"/orders?customer_id={ben}")} == {ben}
        newest = (await who.get("/orders?limit=2")).json()["items"]
        assert [item["customer_id"] for item in newest] == [ben, anna]


async def test_a_foreign_cursor_shows_nothing_that_is_not_yours(login: Any) -> None:
    anna, ben = login(f"cursor-a-{uuid4()}"), login(f"cursor-b-{uuid4()}")
    mine = [(await who.place()).json()["id"] for who in (anna, anna, ben, ben, ben)][:2]
    cursor = (await ben.get("/orders?limit=1")).json()["next_cursor"]
    assert [item["id"] for item in (await anna.get(f"/orders?cursor={cursor}")).json()["items"]] == mine[::-1]
    assert (await login(f"cursor-c-{uuid4()}").get(f"/orders?cursor={cursor}")).json()["items"] == []


def _raw(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


BAD_CURSORS = {
    "empty": "",
    "not base64": "!!!",
    "padded": base64.urlsafe_b64encode(b"order:x1").decode() + "=",
    "other resource": encode_cursor("product", "SKU-0001"),
    "not an id": encode_cursor("order", "7"),
    "id in braces": encode_cursor("order", "{01890a5d-ac96-774b-bcce-b302099a8057}"),
    "sql": encode_cursor("order", "' OR 1=1--"),
    "nul": encode_cursor("order", "\0"),
    "not utf-8": _raw(b"order:\xff\xfe"),
    "no prefix": _raw(b"01890a5d-ac96-774b-bcce-b302099a8057"),
    "standard alphabet": base64.b64encode(b"order:???>>>").decode(),
}


@pytest.mark.parametrize("name", BAD_CURSORS)
async def test_a_cursor_that_is_not_ours_is_400(login: Any, name: str) -> None:
    answer = await login("anna").get(f"/orders?{httpx.QueryParams(cursor=BAD_CURSORS[name])}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-cursor"), answer.text


@pytest.mark.parametrize("name", ["empty", "not base64", "not utf-8", "padded"])
async def test_a_product_cursor_that_is_not_ours_is_400(login: Any, name: str) -> None:
    answer = await login("anna").get(f"/products?{httpx.QueryParams(cursor=BAD_CURSORS[name])}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-cursor"), answer.text


async def test_a_product_cursor_with_a_nul_is_400_not_500(login: Any) -> None:
    answer = await login("anna").get(f"/products?cursor={encode_cursor('product', chr(0))}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-cursor"), answer.text


async def test_the_catalogue_is_walked_by_sku(login: Any, facts: Facts) -> None:
    sku = await facts.add_product()
    items = await walk(login("anna"), "/products?limit=100")
    skus = [item["sku"] for item in items]
    assert skus == sorted(skus)
    assert len(set(skus)) == len(skus) == await facts.value("SELECT count(*) FROM product")
    assert sku in skus
