"""Two API processes are restarted one after the other while people buy: no request fails, no event is lost (H2).

Nobody retries here: one refused connection, one cut answer or one 503 fails the story.
"""

from __future__ import annotations

import os
import signal

import pytest

from tests.stories.crowd import buying
from tests.stories.shop import Shop

pytestmark = pytest.mark.broker

ENOUGH = 25


async def test_a_rolling_restart_fails_nobody(shop: Shop) -> None:
    gone = shop.pids("api")
    assert len(gone) == 2
    async with buying(shop, people=8, sku="SKU-0005") as crowd:
        for pid in gone:
            await crowd.more(ENOUGH)
            os.kill(pid, signal.SIGTERM)
            await crowd.more(ENOUGH)
            await shop.replaced("api", [pid])
        await crowd.more(ENOUGH)
    assert crowd.failures == []
    told = (shop.home / "logs" / "up.log").read_text()
    for pid in gone:
        assert f"(pid {pid}) ended, exit 0" in told, "the process says that it cut nothing"
    await shop.become(crowd.orders, "paid")
    await shop.holds()
