"""Fixtures: real servers once a session, the API in this process, tokens, and a clean way to ask the database.

The service is imported by the fixture that needs it: unit tests need a part of it, and the process that hands out tests nothing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI

    from service.foundation.db import Database
    from service.settings import Settings
    from tests.support.servers import Servers


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """PostgreSQL and Redis, migrated and seeded; the environment points at them for the whole session."""
    from tests.support.servers import running_servers

    with running_servers(seeded=True) as found:
        before = dict(os.environ)
        os.environ.update(found.environment())
        yield found
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def settings(servers: Servers) -> Settings:
    from service.settings import load_settings

    return load_settings()


@pytest_asyncio.fixture(scope="session")
async def db(settings: Settings) -> AsyncIterator[Database]:
    """A pool of the tests' own."""
    from service.foundation.db import Database

    database = Database(settings.db, application="tests", queue_timeout_ms=5_000)
    await database.open()
    yield database
    await database.close()


@pytest_asyncio.fixture(scope="session")
async def app(settings: Settings, db: Database) -> AsyncIterator[FastAPI]:
    """The API in this process, its lifespan running, its keys from the development issuer (no socket)."""
    import httpx

    import service.app
    from service.dev.issuer import create_issuer
    from service.web.jwks import KeySet

    issuer = httpx.AsyncClient(transport=httpx.ASGITransport(create_issuer(settings)))
    patch = pytest.MonkeyPatch()
    patch.setattr(service.app, "KeySet", partial(KeySet, client=issuer))
    made = service.app.create_app(settings)
    async with made.router.lifespan_context(made):
        await made.state.resources.keys.load()
        yield made
    patch.undo()


@pytest_asyncio.fixture(scope="session")
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    import httpx

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        yield client


@pytest.fixture
def login(settings: Settings, http: httpx.AsyncClient) -> Any:
    """`login("anna")`, `login("root", role="admin")`: an API client with that token."""

    from service.dev.issuer import mint
    from tests.support.clients import ApiClient

    def make(sub: str, *, role: str = "customer", **claims: Any) -> ApiClient:
        return ApiClient(http, mint(settings.app.home, sub=sub, role=role, **claims))

    return make
