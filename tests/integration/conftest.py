"""Integration tests look at one promise at a time, so the rate limits are lifted here; tests of the limiter set their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from service.settings import Settings
    from tests.integration.facts import Facts
    from tests.support.servers import Servers


@pytest.fixture(scope="session")
def settings(servers: Servers) -> Settings:
    """As the root's, with `APP_PROFILE=load`: hundreds of requests of one subject are no attack in a test."""
    from service.settings import load_settings

    os.environ["APP_PROFILE"] = "load"
    return load_settings()


@pytest.fixture
def facts(db: Any) -> Facts:
    """What is in the tables."""
    from tests.integration.facts import Facts

    return Facts(db)
