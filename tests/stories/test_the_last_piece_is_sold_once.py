"""N pieces and more buyers: exactly N orders are paid, the others are told that it is sold out."""

from __future__ import annotations

import asyncio

import pytest

from tests.stories.shop import Shop

pytestmark = pytest.mark.broker

SKU, PIECES, BUYERS = "SKU-0002", 100, 130


async def test_the_last_piece_is_sold_once(shop: Shop) -> None:
    buyers = [shop.login(f"buyer-{number}") for number in range(BUYERS)]
    assert (await buyers[0].get(f"/products/{SKU}/availability")).json()["available"] == PIECES
    answers = await asyncio.gather(
        *(shop.definite(lambda buyer=buyer, n=n: buyer.place((SKU, 1), key=f"last-{n}")) for n, buyer in enumerate(buyers))
    )
    assert {answer.status_code for answer in answers} == {201}
    orders = [answer.json() for answer in answers]
    ends = await shop.become(orders, "paid", "rejected")
    assert (ends.count("paid"), ends.count("rejected")) == (PIECES, BUYERS - PIECES)
    reasons = await shop.database.fetch(
        "SELECT DISTINCT status_reason FROM orders WHERE id = ANY ($1::uuid[]) AND status = 'rejected'", [order["id"] for order in orders]
    )
    assert [row["status_reason"] for row in reasons] == ["out_of_stock"]
    assert await shop.database.fetchval("SELECT available FROM stock WHERE sku = $1", SKU) == 0
    await shop.holds()
