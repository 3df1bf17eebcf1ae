"""`plumbline watch` shows what the stack does: orders by state, rates, groups, breakers; and says so where none runs."""

from __future__ import annotations

import re
from pathlib import Path

from tests.stories.shop import Shop


async def test_the_stack_can_be_watched(shop: Shop, tmp_path: Path) -> None:
    anna = shop.login("anna-watched")
    order = (await shop.definite(lambda: anna.place(("SKU-0001", 1), key="watched"))).json()
    await shop.becomes(order, "paid")
    await shop.quiet()
    code, picture = await shop.plumbline("watch", "--once")
    assert code == 0, picture
    lines = {line.split()[0]: line for line in picture.splitlines() if line.strip()}
    paid = await shop.database.fetchval("SELECT count(*) FROM orders WHERE status = 'paid'")
    assert f"paid {paid}" in lines["orders"]
    assert re.search(r"^POST /v1/orders +\d", picture, re.MULTILINE)
    assert "of 128" in lines["in"], "two API processes with 64 slots each"
    assert lines["outbox"].endswith("relays 1")
    assert {"inventory", "payments", "payments.retry", "notifications", "timeline", "cache"} <= set(lines)
    assert "redis closed" in lines["breakers"]
    assert "provider closed" in lines["breakers"]
    assert "no answer" not in picture

    code, said = await shop.plumbline("watch", "--once", env={"PLUMBLINE_HOME": str(tmp_path)})
    assert code == 2
    assert "no stack" in said
