"""Fixtures: real servers once a session, the API in this process, tokens, and a clean way to ask the database.

The service is imported by the fixture that needs it: unit tests need a part of it, and the process that hands out tests nothing.
"""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI

    from service.foundation.db import Database
    from service.settings import Settings
    from tests.support.servers import Servers


# What collecting makes stays as long as the process: to look at it again and again would be a quarter of the time it takes.
gc.disable()

# Files that take long, longest first: a process that takes one last keeps the others waiting (`--no-loadscope-reorder`).
_LONG: Final = (
    # It asks for every invariant of all orders there are, fifty times: first, while they are few.
    "test_a_broken_promise_is_noticed",
    "test_stack", "test_nothing_is_lost_when_anything_is_killed", "test_the_demo_holds", "test_embedded_servers",
    "test_the_doctor_finds_what_is_wrong", "test_runbook_commands_work", "test_one_outage_exhausts_no_other_pool", "test_worker_simulation",
    "test_the_readme_tour_works", "test_one_trace_tells_the_story", "test_lost_telemetry_costs_nothing", "test_cache_at_scale",
    "test_a_charge_that_meets_a_cancel_goes_back", "test_an_unfinished_order_expires_and_gives_back", "test_rate_limits", "test_member",
    "test_the_cache_is_never_wrong", "test_schemathesis", "test_point_in_time_restore", "test_idempotency_storm",
    "test_a_rolling_restart_fails_nobody", "test_online_migration", "test_consumer",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take long begin first, the others as they were."""
    items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else len(_LONG))


def pytest_collection_finish() -> None:
    """From here on what is left behind is collected, and what was there before is not looked at any more."""
    gc.freeze()
    gc.enable()


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
