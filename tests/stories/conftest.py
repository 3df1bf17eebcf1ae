"""One stack for all stories that leave it as they found it; a story with settings of its own starts its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.stories.shop import SHORT_TIERS, Shop, open_shop, running_shop


@pytest.fixture(scope="session")
def shop_home() -> Iterator[Path]:
    # A process that leaves goes on accepting for a second, as it would behind a load balancer.
    with running_shop(api=2, env=SHORT_TIERS | {"APP_HTTP_DRAIN_WAIT_S": "1"}) as home:
        yield home


@pytest_asyncio.fixture(scope="session")
async def shop(shop_home: Path) -> AsyncIterator[Shop]:
    async with open_shop(shop_home) as opened:
        yield opened
