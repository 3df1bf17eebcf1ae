"""However often an order is sent with one key, at once or later, it is bought once and answered alike."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from tests.stories.shop import Shop

KEYS, CLICKS = 12, 8


async def test_a_double_click_buys_once(shop: Shop) -> None:
    anna = shop.login("anna-double")
    keys = [str(uuid4()) for _ in range(KEYS)]
    answers = await asyncio.gather(*(shop.definite(lambda key=key: anna.place(("SKU-0003", 1), key=key)) for key in keys * CLICKS))
    by_key = {key: answers[number::KEYS] for number, key in enumerate(keys)}
    for key, same in by_key.items():
        assert {answer.status_code for answer in same} == {201}, key
        assert len({answer.content for answer in same}) == 1, key
        assert [answer.headers.get("idempotent-replayed") for answer in same].count("true") == CLICKS - 1, key
    orders = [same[0].json() for same in by_key.values()]
    assert await shop.database.fetchval("SELECT count(*) FROM orders WHERE customer_id = 'anna-double'") == KEYS
    for order in orders:
        await shop.becomes(order, "paid")
        assert [entry["state"] for entry in shop.decisions(order)] == ["captured"]
    await shop.holds()


async def test_the_same_key_for_something_else_is_refused_and_writes_nothing(shop: Shop) -> None:
    anna, key = shop.login("anna-other"), str(uuid4())
    first = await shop.definite(lambda: anna.place(("SKU-0003", 1), key=key))
    other = await shop.definite(lambda: anna.place(("SKU-0003", 2), key=key))
    assert (first.status_code, other.status_code, other.json()["code"]) == (201, 422, "idempotency-key-reused")
    assert await shop.database.fetchval("SELECT count(*) FROM orders WHERE customer_id = 'anna-other'") == 1
