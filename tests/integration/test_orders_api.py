"""The order routes, in this process, on a real PostgreSQL: read, cancel, ship, timeline, and who may."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from service.foundation.db import Database
from service.orders.operations import move
from tests.integration.facts import Facts
from tests.integration.waiting import holding, persist, until


async def paid(login: Any, db: Database, customer: str) -> dict[str, Any]:
    """An order of `customer`, taken to `paid` as the workers would; answers its JSON."""
    order = (await login(customer).place()).json()
    for step in ("reserve", "pay"):
        async with db.transaction() as connection:
            assert await move(connection, UUID(order["id"]), step) is not None
    async with db.connection() as connection:
        version = await connection.fetchval("SELECT version FROM orders WHERE id = $1", UUID(order["id"]))
    return order | {"status": "paid", "version": version}


async def test_an_order_is_placed_and_read_back_as_answered(login: Any) -> None:
    anna = login("anna")
    placed = await anna.place(("SKU-0001", 2), note="ring twice")
    assert placed.status_code == 201, placed.text
    order = placed.json()
    assert placed.headers["location"] == f"/v1/orders/{order['id']}"
    assert placed.headers["etag"] == '"1.1"'
    assert UUID(order["id"]).version == 7
    assert order["total_minor"] == 1998
    assert (order["status"], order["version"], order["customer_id"]) == ("placed", 1, "anna")
    read = await anna.get(f"/orders/{order['id']}")
    assert read.status_code == 200, read.text
    assert read.json() == order
    assert read.headers["cache-control"] == "private, no-cache"
    assert read.headers["vary"] == "Authorization"
    for tags in ('"1.1"', 'W/"1.1"', '"9.1", "1.1"', "*"):
        same = await anna.get(f"/orders/{order['id']}", if_none_match=tags)
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", '"1.1"')
    assert (await anna.get(f"/orders/{order['id']}", if_none_match='"2.1"')).status_code == 200


async def test_a_retry_with_the_same_key_is_a_byte_identical_replay(login: Any) -> None:
    anna, key = login("anna"), str(uuid4())
    first, again = await anna.place(key=key), await anna.place(key=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert again.headers["idempotent-replayed"] == "true"
    assert {k: first.headers[k] for k in ("location", "etag", "content-type")} == {k: again.headers[k] for k in ("location", "etag", "content-type")}


async def test_text_comes_back_in_one_normal_form(login: Any) -> None:
    anna = login("anna")
    placed = await anna.place(note="Cafe\u0301 {{7*7}} ${jndi:ldap://x} __proto__")
    assert placed.json()["note"] == "Caf\u00e9 {{7*7}} ${jndi:ldap://x} __proto__", "stored inert, composed"


async def test_somebody_elses_order_is_the_same_404_as_a_missing_one(login: Any) -> None:
    order = (await login("anna").place()).json()
    ben = login("ben")
    foreign = await ben.get(f"/orders/{order['id']}")
    missing = await ben.get(f"/orders/{uuid4()}")
    assert (foreign.status_code, missing.status_code) == (404, 404)
    assert {k: v for k, v in foreign.json().items() if k != "request_id"} == {k: v for k, v in missing.json().items() if k != "request_id"}
    assert (await ben.get(f"/orders/{order['id']}/timeline")).status_code == 404
    assert (await ben.cancel(order)).status_code == 404
    assert (await login("adam", role="admin").get(f"/orders/{order['id']}")).status_code == 404, "an admin runs the shop, and reads no orders"
    for role in ("operator", "auditor"):
        assert (await login(role, role=role).get(f"/orders/{order['id']}")).json() == order


@pytest.mark.parametrize("step", ["cancel", "ship"])
async def test_a_step_needs_the_current_etag_and_happens_once(login: Any, db: Database, facts: Facts, step: str) -> None:
    order = await paid(login, db, f"step-{uuid4()}")
    who, path = login("olga", role="operator"), f"/orders/{order['id']}/{step}"
    before = await facts.counts()
    assert (await who.post(path)).json()["code"] == "precondition-required"
    for unusable in ("*", 'W/"3.1"', "3.1", '"3"', '"3.1", "4.1"', '"0.1"', ""):
        refused = await who.post(path, if_match=unusable)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid-precondition"), unusable
    stale = await who.post(path, if_match='"2.1"')
    assert (stale.status_code, stale.json()["code"], stale.headers["etag"]) == (412, "precondition-failed", '"3.1"')
    assert await facts.counts() == before
    key = str(uuid4())
    done = await who.post(path, key=key, if_match='"3.7"')
    target = {"cancel": "cancelled", "ship": "shipped"}[step]
    assert (done.status_code, done.json()["status"], done.json()["version"], done.headers["etag"]) == (200, target, 4, '"4.1"')
    assert (await who.get(f"/orders/{order['id']}")).json() == done.json(), "C3: its writer reads its write"
    replay = await who.post(path, key=key, if_match='"3.7"')
    assert (replay.content, replay.headers["etag"], replay.headers["idempotent-replayed"]) == (done.content, '"4.1"', "true")
    assert (await who.post(path, key=key)).content == done.content, "a replay comes before the precondition"
    again = await who.post(path, if_match='"4.1"')
    assert (again.status_code, again.json()["code"]) == (409, "invalid-transition")
    assert [event for event, _ in await facts.events(order["id"])] == ["order.placed", "order.reserved", "order.paid", f"order.{target}"]


async def test_only_what_is_paid_can_be_shipped_and_only_by_operators(login: Any, facts: Facts) -> None:
    anna = login("anna")
    order = (await anna.place()).json()
    before = await facts.counts()
    early = await login("olga", role="operator").ship(order)
    assert (early.status_code, early.json()["code"]) == (409, "invalid-transition")
    for role in ("customer", "auditor", "admin"):
        refused = await login("anna", role=role).ship(order)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    assert await facts.counts() == before


async def test_a_key_belongs_to_one_path_and_one_order(login: Any) -> None:
    anna, key = login("anna"), str(uuid4())
    one, two = (await anna.place()).json(), (await anna.place()).json()
    assert (await anna.cancel(one, key=key)).status_code == 200
    other = await anna.cancel(two, key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert (await anna.place(key=key)).json()["code"] == "idempotency-key-reused"
    assert (await anna.get(f"/orders/{two['id']}")).json()["status"] == "placed"


async def test_of_many_writers_with_the_same_etag_one_wins(login: Any, facts: Facts) -> None:
    anna = login(f"race-{uuid4()}")
    order = (await anna.place()).json()
    keys = [str(uuid4()) for _ in range(16)]
    answers = await asyncio.gather(*(persist(lambda key=key: anna.cancel(order, key=key)) for key in keys))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 15, "G3"
    assert await facts.events(order["id"]) == [("order.placed", 1), ("order.cancelled", 2)]


async def test_twins_of_a_cancel_get_the_same_answer(login: Any, facts: Facts) -> None:
    anna, key = login(f"twin-cancel-{uuid4()}"), str(uuid4())
    order = (await anna.place()).json()
    answers = await asyncio.gather(*(persist(lambda: anna.cancel(order, key=key)) for _ in range(16)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 15
    assert await facts.events(order["id"]) == [("order.placed", 1), ("order.cancelled", 2)]


async def test_a_cancel_whose_twin_is_in_flight_is_409(login: Any, facts: Facts) -> None:
    anna, key = login(f"held-cancel-{uuid4()}"), str(uuid4())
    order = (await anna.place()).json()
    async with holding(facts, "SELECT FROM orders WHERE id = $1 FOR UPDATE", UUID(order["id"])):

        async def both() -> bool:
            """A host that stalls for the whole lock wait of the first lets its twin come too late to meet it: then once more."""
            answers = await asyncio.gather(anna.cancel(order, key=key), anna.cancel(order, key=key))
            codes = {answer.json()["code"] for answer in answers}
            assert codes <= {"idempotency-in-flight", "overloaded"}, "the one that waits for the order is contended, its twin in flight"
            return "idempotency-in-flight" in codes

        await until(both, "a twin is told that the first is in flight")
    assert (await persist(lambda: anna.cancel(order, key=key))).status_code == 200


async def test_the_timeline_is_what_the_read_model_has(login: Any, facts: Facts) -> None:
    anna = login("anna")
    order = (await anna.place()).json()
    assert (await anna.get(f"/orders/{order['id']}/timeline")).json() == {"items": []}
    add = "INSERT INTO order_timeline VALUES ($1, $2, $3, '2030-01-01T00:00:00.5Z', $4)"
    for version, event, detail in ((2, "order.rejected", {"reason": "out_of_stock"}), (1, "order.placed", {})):
        await facts.run(add, UUID(order["id"]), version, event, detail)
    items = (await anna.get(f"/orders/{order['id']}/timeline")).json()["items"]
    assert [(item["version"], item["type"], item["detail"]) for item in items] == [
        (1, "order.placed", {}),
        (2, "order.rejected", {"reason": "out_of_stock"}),
    ]
    assert {item["at"] for item in items} == {"2030-01-01T00:00:00.500000Z"}, "RFC 3339 UTC with microseconds, as everywhere"
