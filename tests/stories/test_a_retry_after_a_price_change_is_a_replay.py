"""A retry of what succeeded answers as before, whatever became of the price or the product since."""

from __future__ import annotations

from uuid import uuid4

from tests.stories.shop import Shop

SKU = "SKU-0700"


async def test_a_retry_after_a_price_change_is_a_replay(shop: Shop) -> None:
    anna, admin, key = shop.login("anna-price"), shop.login("root", role="admin"), str(uuid4())
    product = await anna.get(f"/products/{SKU}")
    old_minor = product.json()["price_minor"]
    first = await shop.definite(lambda: anna.place((SKU, 2), key=key, expected_total_minor=2 * old_minor))
    assert (first.status_code, first.json()["total_minor"]) == (201, 2 * old_minor)

    dearer = await admin.patch(f"/products/{SKU}", {"price_minor": old_minor + 100}, if_match=product.headers["etag"])
    assert dearer.status_code == 200, dearer.text
    replay = await shop.definite(lambda: anna.place((SKU, 2), key=key, expected_total_minor=2 * old_minor))
    assert (replay.status_code, replay.content, replay.headers["idempotent-replayed"]) == (201, first.content, "true")
    surprised = await shop.definite(lambda: anna.place((SKU, 2), key=f"{key}-new", expected_total_minor=2 * old_minor))
    assert (surprised.status_code, surprised.json()["code"]) == (409, "price-changed")
    content = await shop.definite(lambda: anna.place((SKU, 2), key=f"{key}-new"))
    assert (content.status_code, content.json()["total_minor"]) == (201, 2 * old_minor + 200)

    gone = await admin.patch(f"/products/{SKU}", {"active": False}, if_match=dearer.headers["etag"])
    assert gone.status_code == 200, gone.text
    replay = await shop.definite(lambda: anna.place((SKU, 2), key=key, expected_total_minor=2 * old_minor))
    assert (replay.status_code, replay.content, replay.headers["idempotent-replayed"]) == (201, first.content, "true")
    refused = await shop.definite(lambda: anna.place((SKU, 2), key=f"{key}-late"))
    assert (refused.status_code, refused.json()["code"]) == (422, "validation-failed")
    assert await shop.database.fetchval("SELECT count(*) FROM orders WHERE customer_id = 'anna-price'") == 2
    await shop.holds()
