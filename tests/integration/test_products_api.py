"""The catalogue's routes: read, change with If-Match, restock once per key, availability."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from tests.integration.facts import Facts
from tests.integration.waiting import persist, until


async def test_a_product_is_read_with_a_strong_etag(login: Any, facts: Facts) -> None:
    anna, sku = login("anna"), await facts.add_product(price_minor=1_234)
    read = await anna.get(f"/products/{sku}")
    product = read.json()
    assert (read.status_code, read.headers["etag"], read.headers["cache-control"]) == (200, '"1.1"', "private, no-cache")
    assert {name: product[name] for name in product if name != "updated_at"} == {
        "sku": sku, "name": sku, "price_minor": 1_234, "currency": "EUR", "active": True, "version": 1,
    }  # fmt: skip
    assert product["updated_at"].endswith("Z")
    assert len(product["updated_at"]) == len("2030-01-01T00:00:00.000000Z")
    assert (await anna.get(f"/products/{sku}", if_none_match='"1.1"')).status_code == 304
    for role in ("operator", "auditor", "admin"):
        assert (await login(role, role=role).get(f"/products/{sku}")).json() == product
    assert (await anna.get("/products/NO-SUCH-SKU")).json()["code"] == "not-found"
    assert (await anna.get("/products/NO-SUCH-SKU/availability")).json()["code"] == "not-found"


async def test_a_change_needs_the_current_etag_and_is_said_once(login: Any, facts: Facts) -> None:
    admin, sku = login("adam", role="admin"), await facts.add_product()
    before = await facts.counts()
    assert (await admin.patch(f"/products/{sku}", {"price_minor": 1})).json()["code"] == "precondition-required"
    stale = await admin.patch(f"/products/{sku}", {"price_minor": 1}, if_match='"7.1"')
    assert (stale.status_code, stale.headers["etag"]) == (412, '"1.1"')
    assert (await admin.patch("/products/NO-SUCH-SKU", {"price_minor": 1}, if_match='"1.1"')).status_code == 404
    for role in ("customer", "operator", "auditor"):
        assert (await login(role, role=role).patch(f"/products/{sku}", {"price_minor": 1}, if_match='"1.1"')).status_code == 403
    assert await facts.counts() == before
    changed = await admin.patch(f"/products/{sku}", {"name": "Lamp", "active": False}, if_match='"1.1"')
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2.1"')
    wanted = {"name": "Lamp", "active": False, "price_minor": 1_000, "version": 2}
    assert {name: changed.json()[name] for name in wanted} == wanted
    assert (await login("anna").get(f"/products/{sku}")).json() == changed.json(), "C3: the write is read at once"
    assert await facts.events(sku) == [("product.changed", 2)], "the seed wrote version 1 without an event"


async def test_of_many_changes_with_the_same_etag_one_wins(login: Any, facts: Facts) -> None:
    admin, sku = login("adam", role="admin"), await facts.add_product()
    bodies = [{"price_minor": 2_000 + n} for n in range(16)]
    answers = await asyncio.gather(*(persist(lambda body=body: admin.patch(f"/products/{sku}", body, if_match='"1.1"')) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 15, "G3"
    winner = next(answer.json() for answer in answers if answer.status_code == 200)
    assert (await admin.get(f"/products/{sku}")).json() == winner
    assert await facts.events(sku) == [("product.changed", 2)]


async def test_a_restock_counts_once_per_key(login: Any, facts: Facts) -> None:
    admin, sku, key = login("adam", role="admin"), await facts.add_product(pieces=5), str(uuid4())
    answers = await asyncio.gather(*(persist(lambda: admin.post(f"/products/{sku}/restock", {"quantity": 7}, key=key)) for _ in range(12)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert answers[0].json() == {"sku": sku, "quantity": 7, "version": 2}
    assert await facts.stock(sku) == 12
    assert await facts.value("SELECT sum(quantity) FROM stock_ledger WHERE sku = $1", sku) == 12, "G1: the ledger agrees"
    assert await facts.events(sku) == [("product.restocked", 2)]
    other = await admin.post(f"/products/{sku}/restock", {"quantity": 8}, key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    before = await facts.counts()
    assert (await admin.post("/products/NO-SUCH-SKU/restock", {"quantity": 1})).status_code == 404
    assert (await login("olga", role="operator").post(f"/products/{sku}/restock", {"quantity": 1})).status_code == 403
    assert await facts.counts() == before


async def test_concurrent_restocks_and_changes_all_count(login: Any, facts: Facts) -> None:
    admin, sku = login("adam", role="admin"), await facts.add_product(pieces=0)
    keys = [str(uuid4()) for _ in range(20)]
    answers = await asyncio.gather(*(persist(lambda key=key: admin.post(f"/products/{sku}/restock", {"quantity": 3}, key=key)) for key in keys))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["version"] for answer in answers) == list(range(2, 22))
    assert await facts.stock(sku) == 60
    assert [version for _, version in await facts.events(sku)] == list(range(2, 22)), "O2: 2, 3, 4 …"


async def test_availability_follows_within_its_second(login: Any, facts: Facts) -> None:
    anna, sku = login("anna"), await facts.add_product(pieces=5)
    assert (await anna.get(f"/products/{sku}/availability")).json() == {"sku": sku, "available": 5}
    await facts.run("UPDATE stock SET available = 4 WHERE sku = $1", sku)

    async def seen() -> bool:
        return bool((await anna.get(f"/products/{sku}/availability")).json()["available"] == 4)

    await until(seen, "availability is at most a second old", deadline_s=10)
