"""The order routes, in this process, on a real PostgreSQL."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from service.foundation.db import Database


async def test_an_order_is_placed_and_read_back_as_answered(login: Any) -> None:
    anna = login("anna")
    placed = await anna.place(("SKU-0001", 2), note="ring twice")
    assert placed.status_code == 201, placed.text
    order = placed.json()
    assert placed.headers["location"] == f"/v1/orders/{order['id']}"
    assert placed.headers["etag"] == '"1.1"'
    assert order["total_minor"] == 1998
    assert (order["status"], order["version"], order["customer_id"]) == ("placed", 1, "anna")
    read = await anna.get(f"/orders/{order['id']}")
    assert read.status_code == 200, read.text
    assert read.json() == order
    assert (await anna.get(f"/orders/{order['id']}", if_none_match='"1.1"')).status_code == 304


async def test_a_retry_with_the_same_key_is_a_byte_identical_replay(login: Any) -> None:
    anna, key = login("anna"), str(uuid4())
    first, again = await anna.place(key=key), await anna.place(key=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert again.headers["idempotent-replayed"] == "true"
    assert {k: first.headers[k] for k in ("location", "etag", "content-type")} == {k: again.headers[k] for k in ("location", "etag", "content-type")}


@pytest.mark.parametrize("step", ["cancel"])
async def test_cancel_needs_the_current_etag_and_happens_once(login: Any, db: Database, step: str) -> None:
    anna = login("anna")
    order = (await anna.place()).json()
    assert (await anna.post(f"/orders/{order['id']}/{step}")).status_code == 428
    stale = await anna.cancel(order, etag='"7.1"')
    assert (stale.status_code, stale.headers["etag"]) == (412, '"1.1"')
    key = str(uuid4())
    done = await anna.cancel(order, key=key)
    assert (done.status_code, done.json()["status"], done.json()["version"]) == (200, "cancelled", 2)
    replay = await anna.cancel(order, key=key)
    assert replay.content == done.content
    refused = await anna.cancel(done.json())
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid-transition")
    async with db.connection() as connection:
        events = await connection.fetch("SELECT type, version FROM outbox WHERE aggregate_id = $1 ORDER BY seq", order["id"])
    assert [tuple(row) for row in events] == [("order.placed", 1), ("order.cancelled", 2)]
