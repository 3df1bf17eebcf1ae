"""One stack for all stories that leave it as they found it, one a file for those about spans; a story with other settings starts its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.stories.shop import SHORT_TIERS, Shop, open_shop, running_shop
from tests.support.otlp import Receiver, receiving


@pytest.fixture(scope="session")
def shop_home() -> Iterator[Path]:
    # A process that leaves goes on accepting for a second, as it would behind a load balancer.
    with running_shop(api=2, env=SHORT_TIERS | {"APP_HTTP_DRAIN_WAIT_S": "1"}) as home:
        yield home


@pytest_asyncio.fixture(scope="session")
async def shop(shop_home: Path) -> AsyncIterator[Shop]:
    async with open_shop(shop_home) as opened:
        yield opened


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Receiver, str]]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def traced_home(collector: tuple[Receiver, str]) -> Iterator[Path]:
    traced = {"APP_TELEMETRY_OTLP_URL": collector[1], "APP_TELEMETRY_SAMPLE_RATIO": "1", "APP_TELEMETRY_LOG_FORMAT": "json"}
    with running_shop(env=SHORT_TIERS | traced) as home:
        yield home


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def traced(traced_home: Path) -> AsyncIterator[Shop]:
    """A shop whose processes export every span to `collector`."""
    async with open_shop(traced_home) as opened:
        yield opened
