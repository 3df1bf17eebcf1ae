"""An order the provider cannot charge is retried, then parked with its reason; nobody else waits for it."""

from __future__ import annotations

import asyncio

import pytest

from tests.stories.shop import Shop, until

pytestmark = pytest.mark.broker

# 83 × 999 ends in 17: the provider fails on it.
HOPELESS = ("SKU-0001", 83)
OTHERS = 40


async def test_a_hopeless_order_is_parked_and_others_go_on(shop: Shop) -> None:
    anna = shop.login("anna-hopeless")
    hopeless = (await shop.definite(lambda: anna.place(HOPELESS, key="hopeless"))).json()
    assert hopeless["total_minor"] % 100 == 17
    answers = await asyncio.gather(*(shop.definite(lambda n=n: anna.place(("SKU-0001", 1), key=f"other-{n}")) for n in range(OTHERS)))
    await shop.become([answer.json() for answer in answers], "paid")

    async def letter() -> object:
        return await shop.database.fetchrow("SELECT * FROM dead_letter WHERE aggregate_id = $1", hopeless["id"])

    row = await until(letter, "the hopeless order is parked")
    assert (row["consumer"], row["status"], row["error_class"], row["topic"]) == ("payments", "open", "ProviderError", "orders.events.v1")
    assert row["headers"]["ce_type"] == "order.reserved"
    ids = [hopeless["id"], *(answer.json()["id"] for answer in answers)]
    assert await shop.database.fetchval("SELECT count(*) FROM dead_letter WHERE aggregate_id = ANY ($1)", ids) == 1
    assert await shop.becomes(hopeless, "reserved") == "reserved"
    assert shop.decisions(hopeless) == []
    await shop.holds(parked=[hopeless["id"]])

    # What cannot be charged can still be withdrawn: stock goes back, and a late charge is refused.
    current = await anna.get(f"/orders/{hopeless['id']}")
    cancelled = await shop.definite(lambda: anna.cancel(current.json(), key="withdrawn"))
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")

    async def voided() -> bool:
        return [entry["state"] for entry in shop.decisions(hopeless)] == ["voided"]

    await until(voided, "the provider knows that nothing may be charged any more")
    await shop.holds()
