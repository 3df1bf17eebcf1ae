"""Placing an order under every kind of bad luck: twins, changed prices, killed backends, held locks.

Invariants I1–I4 of docs/guarantees.md, asserted on the tables, not on what the API says about itself.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.integration.facts import Facts
from tests.integration.waiting import blocked_backends, holding, persist, until

KEYS, TWINS, IN_FLIGHT = 20, 32, 64


async def test_64_in_flight_over_twins_of_20_keys_make_20_orders(login: Any, facts: Facts) -> None:
    customer = f"twins-{uuid4()}"
    anna, keys = login(customer), [str(uuid4()) for _ in range(KEYS)]
    wanted = random.Random(7).sample(keys * TWINS, KEYS * TWINS)
    flight = asyncio.Semaphore(IN_FLIGHT)

    async def one(key: str) -> tuple[str, httpx.Response]:
        async with flight:
            return key, await persist(lambda: anna.place(("SKU-0001", 1 + keys.index(key)), key=key))

    answers = await asyncio.gather(*(one(key) for key in wanted))
    assert {answer.status_code for _, answer in answers} == {201}
    for key in keys:
        mine = [answer for found, answer in answers if found == key]
        assert len({answer.content for answer in mine}) == 1, "I4: byte-identical"
        assert sum("idempotent-replayed" not in answer.headers for answer in mine) <= 1, "at most one of them is the first"
    await facts.assert_orders_are(customer, [answer for _, answer in answers])
    assert await facts.value("SELECT count(*) FROM idempotency_key WHERE principal = $1", customer) == KEYS


async def test_another_body_under_the_same_key_is_422_and_writes_nothing(login: Any, facts: Facts) -> None:
    anna, key = login(f"other-body-{uuid4()}"), str(uuid4())
    first = await anna.place(("SKU-0001", 1), key=key)
    before = await facts.counts()
    other = await anna.place(("SKU-0001", 2), key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert await facts.counts() == before
    assert (await anna.place(("SKU-0001", 1), key=key)).content == first.content


async def test_the_same_body_in_other_words_is_the_same_request(login: Any, http: httpx.AsyncClient) -> None:
    anna, key = login(f"words-{uuid4()}"), str(uuid4())
    headers = anna.headers | {"idempotency-key": key, "content-type": "application/json"}
    first = await http.post("/v1/orders", content=b'{"lines":[{"sku":"SKU-0001","quantity":1}],"currency":"EUR"}', headers=headers)
    headers["idempotency-key"] = f'"{key}"'
    again = await http.post("/v1/orders", content=b'{ "currency":"EUR", "lines":[{"quantity":1, "sku":"SKU-0001"}] }', headers=headers)
    assert (first.status_code, again.content, again.headers["idempotent-replayed"]) == (201, first.content, "true")


async def test_keys_of_two_customers_are_independent(login: Any) -> None:
    key = str(uuid4())
    mine, yours = await login("key-anna").place(key=key), await login("key-ben").place(key=key)
    assert (mine.status_code, yours.status_code) == (201, 201)
    assert mine.json()["id"] != yours.json()["id"]
    assert "idempotent-replayed" not in yours.headers


async def test_what_the_catalogue_does_not_back_is_refused_by_name_and_writes_nothing(login: Any, facts: Facts) -> None:
    anna = login(f"refused-{uuid4()}")
    inactive, dollars = await facts.add_product(active=False), await facts.add_product(currency="USD")
    before = await facts.counts()
    cases = [
        ((("NO-SUCH-SKU", 1),), {}, 422, "validation-failed", "/lines/0/sku"),
        ((("SKU-0001", 1), (inactive, 1)), {}, 422, "validation-failed", "/lines/1/sku"),
        (((dollars, 1),), {}, 422, "validation-failed", "/currency"),
        ((("SKU-0001", 1),), {"currency": "USD"}, 422, "validation-failed", "/currency"),
        ((("SKU-0001", 1),), {"expected_total_minor": 1}, 409, "price-changed", None),
    ]
    for lines, extra, status, code, pointer in cases:
        answer = await anna.place(*lines, **extra)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        if pointer is not None:
            assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert (await anna.place(("SKU-0001", 1), expected_total_minor=1)).json()["total_minor"] == 999
    assert await facts.counts() == before, "I3: a 4xx left no row"


CHANGES = {
    "price": "UPDATE product SET price_minor = price_minor + 1, version = version + 1 WHERE sku = $1",
    "activity": "UPDATE product SET active = false, version = version + 1 WHERE sku = $1",
    "currency": "UPDATE product SET currency = 'USD', version = version + 1 WHERE sku = $1",
}


@pytest.mark.parametrize("warm", [True, False], ids=["catalogue-read-before", "catalogue-unread"])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_retry_after_the_product_changed_is_a_replay(login: Any, facts: Facts, change: str, *, warm: bool) -> None:
    customer = f"replay-{uuid4()}"
    anna, admin, key, sku = login(customer), login("root", role="admin"), str(uuid4()), await facts.add_product()
    first = await anna.place((sku, 2), key=key, expected_total_minor=2_000)
    assert first.status_code == 201, first.text
    await facts.run(CHANGES[change], sku)
    if warm:  # through the front door, so that whatever the process remembers is new
        tag = (await admin.get(f"/products/{sku}")).headers["etag"]
        version = await facts.value("SELECT version FROM product WHERE sku = $1", sku)
        changed = await admin.patch(f"/products/{sku}", {"name": "renamed"}, if_match=f'"{version}{tag[tag.index(".") :]}')
        assert changed.status_code == 200, changed.text
    again = await anna.place((sku, 2), key=key, expected_total_minor=2_000)
    assert (again.status_code, again.content, again.headers["idempotent-replayed"]) == (201, first.content, "true")
    fresh = await anna.place((sku, 2), expected_total_minor=2_000)
    assert fresh.status_code == (409 if change == "price" else 422), "a new key meets the catalogue as it is"
    await facts.assert_orders_are(customer, [first, again])


async def test_a_stale_belief_costs_a_second_look_never_a_wrong_price(login: Any, facts: Facts) -> None:
    anna, sku = login(f"belief-{uuid4()}"), await facts.add_product(price_minor=1_000)
    assert (await anna.place((sku, 1))).json()["total_minor"] == 1_000
    await facts.run("UPDATE product SET price_minor = 1500, version = version + 1 WHERE sku = $1", sku)
    answer = await anna.place((sku, 1))
    assert (answer.status_code, answer.json()["total_minor"]) == (201, 1_500)
    assert answer.json()["lines"][0]["unit_price_minor"] == 1_500


async def test_a_no_from_memory_is_asked_again_and_may_become_a_yes(login: Any, facts: Facts) -> None:
    anna, sku = login(f"yes-{uuid4()}"), await facts.add_product(active=False)
    assert (await anna.place((sku, 1))).status_code == 422
    await facts.run("UPDATE product SET active = true, version = version + 1 WHERE sku = $1", sku)
    assert (await anna.place((sku, 1))).status_code == 201


async def test_a_twin_in_flight_is_409_then_replay_when_it_committed(login: Any, facts: Facts) -> None:
    customer, key = f"held-{uuid4()}", str(uuid4())
    anna = login(customer)
    fingerprint = "INSERT INTO idempotency_key (principal, key, fingerprint, status, headers, body) VALUES ($1, $2, 'x', 201, '{}', 'held')"
    before = await facts.counts()
    async with holding(facts, fingerprint, customer, key):
        answer = await anna.place(key=key)
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency-in-flight"), answer.text
        assert answer.headers["retry-after"] == "1"
        refused = await anna.place(("NO-SUCH-SKU", 1), key=key)
        assert refused.json()["code"] == "idempotency-in-flight", "no final 4xx while a twin may still succeed"
    assert await facts.counts() == before, "I4: a 409 writes nothing"
    assert (await anna.place(key=key)).status_code == 201, "the twin left nothing: the key is free"


async def test_a_killed_backend_leaves_its_key_usable_at_once(login: Any, facts: Facts) -> None:
    customer, key, sku = f"killed-{uuid4()}", str(uuid4()), await facts.add_product()
    anna = login(customer)
    before = await facts.counts()
    # The foreign key's check waits for this row after the key was claimed and the order inserted.
    async with holding(facts, "SELECT FROM product WHERE sku = $1 FOR UPDATE", sku) as blocker:
        request = asyncio.create_task(anna.place((sku, 1), key=key))
        (victim, *_) = await until(lambda: blocked_backends(facts, blocker), "the create waits for the product row")
        assert await facts.value("SELECT pg_terminate_backend($1, 5000)", victim)
        cut = await request
    assert (cut.status_code, cut.json()["code"]) == (503, "dependency-unavailable"), cut.text
    assert int(cut.headers["retry-after"]) >= 1
    assert await facts.counts() == before
    again = await anna.place((sku, 1), key=key)
    assert again.status_code == 201, again.text
    assert "idempotent-replayed" not in again.headers
    await facts.assert_orders_are(customer, [again])


async def test_contention_is_retried_and_wins_when_the_lock_goes(login: Any, facts: Facts) -> None:
    anna, sku = login(f"contended-{uuid4()}"), await facts.add_product()
    started: set[Any] = set()

    async with holding(facts, "SELECT FROM product WHERE sku = $1 FOR UPDATE", sku) as blocker:

        async def tried_twice() -> bool:
            sql = "SELECT pid, query_start FROM pg_stat_activity WHERE application_name = 'orders-api' AND $1 = ANY (pg_blocking_pids(pid))"
            started.update(tuple(row) for row in await facts.rows(sql, blocker.get_server_pid()))
            return len(started) >= 2

        request = asyncio.create_task(anna.place((sku, 1)))
        await until(tried_twice, "the statement timed out on the lock and was run again")
    answer = await request
    assert answer.status_code == 201, answer.text


async def test_contention_without_end_is_503_with_nothing_written(login: Any, facts: Facts) -> None:
    anna, sku, key = login(f"endless-{uuid4()}"), await facts.add_product(), str(uuid4())
    before = await facts.counts()
    async with holding(facts, "SELECT FROM product WHERE sku = $1 FOR UPDATE", sku):
        answer = await anna.place((sku, 1), key=key)
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded"), answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert await facts.counts() == before
    assert (await anna.place((sku, 1), key=key)).status_code == 201


async def test_an_operator_orders_for_a_customer_and_only_an_operator(login: Any, facts: Facts) -> None:
    customer = f"for-{uuid4()}"
    operator, anna = login("olga", role="operator"), login(customer)
    before = await facts.counts()
    nobody = await operator.place()
    assert (nobody.status_code, nobody.json()["errors"][0]["pointer"]) == (422, "/customer_id")
    for claimed in (customer, "somebody-else"):
        assert (await anna.place(customer_id=claimed)).status_code == 403, "sending customer_id is the operator's alone"
    assert (await login("adam", role="admin").place(customer_id=customer)).status_code == 403
    assert await facts.counts() == before
    placed = await operator.place(customer_id=customer)
    assert (placed.status_code, placed.json()["customer_id"]) == (201, customer)
    assert (await anna.get(f"/orders/{placed.json()['id']}")).status_code == 200
    await facts.assert_orders_are(customer, [placed])
