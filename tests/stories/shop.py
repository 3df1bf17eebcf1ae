"""A whole running stack as a story sees it: customers, processes to kill, the truth in PostgreSQL, the provider's log.

Calls go over real sockets to real processes; whatever is not definite (a reset, a timeout, 409 in flight, 429,
503) is retried with the same key, as a careful client does. A wait has a deadline and says what it waited for.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import asyncpg
import httpx

from service.dev.children import StackError
from service.dev.issuer import mint
from service.dev.postgres import EmbeddedPostgres
from service.dev.roster import BrokerKind
from service.dev.stack import running_stack
from service.dev.state import ROOT, read_stack
from tests.support import invariants
from tests.support.clients import ApiClient
from tests.support.servers import free_base_port
from tests.support.template import copy_template

T = TypeVar("T")
Order = dict[str, Any]

DEADLINE_S = 180.0  # on a busy host a process may need a minute to start
SHORT_TIERS = {"APP_WORKER_TIERS_S": "0.3,0.6"}
_BROKER = cast("BrokerKind", os.environ.get("PLUMBLINE_TEST_KAFKA", "memory"))
_ATTEMPTS_FOR_PORTS, _START_S = 3, 300.0
# What other fixtures of the session may have set: the stack's own settings are the ones to use.
_ADDRESSES = frozenset({"DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP", "HTTP_PORT", "OPS_PORT", "PLUMBLINE_HOME"})


async def until(question: Callable[[], Awaitable[T]], what: str, *, timeout_s: float = DEADLINE_S) -> T:
    """Ask every 30 ms until the answer is true; answers it. Fails naming `what` and the last answer."""
    deadline = time.monotonic() + timeout_s
    asked = time.monotonic()
    while not (answer := await question()):
        now = time.monotonic()
        assert now < deadline, f"not within {timeout_s:g} s: {what}; the last answer was {answer!r}"
        await asyncio.sleep(max(0.03, 2 * (now - asked)))  # a dear question leaves the machine to those it waits for
        asked = time.monotonic()
    return answer


def is_definite(response: httpx.Response) -> bool:
    """Does the answer say for certain what happened? (A careful client repeats the others with the same key.)"""
    if response.status_code == 409:
        return bool(response.json()["code"] != "idempotency-in-flight")
    return response.status_code < 500 and response.status_code not in {401, 429}


class Shop:
    """One running stack. `http` is shared by all customers; a story opens no other."""

    def __init__(self, home: Path, http: httpx.AsyncClient, database: asyncpg.Connection[asyncpg.Record]) -> None:
        self.home, self.http, self.database = home, http, database
        self.urls: Mapping[str, str] = read_stack(home)["urls"]
        # What customers were answered, indefinite answers included: status → times.
        self.answers: dict[int, int] = {}

    # -- customers

    def login(self, sub: str, *, role: str = "customer") -> ApiClient:
        """A customer, operator or admin with a token of their own."""
        return ApiClient(self.http, mint(self.home, sub=sub, role=role, issuer=self.urls["issuer"]))

    async def definite(self, send: Callable[[], Awaitable[httpx.Response]], *, timeout_s: float = DEADLINE_S) -> httpx.Response:
        """Repeat `send` (which must use one key) until the answer is definite."""

        async def attempt() -> httpx.Response | None:
            try:
                response = await send()
            except httpx.HTTPError:
                return None
            self.answers[response.status_code] = self.answers.get(response.status_code, 0) + 1
            return response if is_definite(response) else None

        answer = await until(attempt, "a definite answer", timeout_s=timeout_s)
        assert answer is not None
        return answer

    async def become(self, orders: Sequence[Order], *statuses: str) -> list[str]:
        """Wait until each order has one of `statuses`; answers which, in the order asked."""
        ids = [order["id"] for order in orders]

        async def look() -> list[str] | None:
            rows = await self.database.fetch("SELECT id::text, status FROM orders WHERE id = ANY ($1::uuid[])", ids)
            found = {row["id"]: row["status"] for row in rows}
            late.clear()
            late.update({name: status for name, status in found.items() if status not in statuses})
            return None if late else [found[name] for name in ids]

        late: dict[str, str] = {}
        try:
            return await until(look, f"{len(ids)} orders become {' or '.join(statuses)}") or []
        except AssertionError as error:
            raise AssertionError(f"{error}: {len(late)} are late, such as {list(late.items())[:3]}") from None

    async def becomes(self, order: Order, *statuses: str) -> str:
        """As `become`, for one order."""
        return (await self.become([order], *statuses))[0]

    async def status(self, order: Order) -> str:
        """The order's status in the database."""
        return str(await self.database.fetchval("SELECT status FROM orders WHERE id = $1", order["id"]))

    # -- the provider

    def decisions(self, order: Order) -> list[dict[str, Any]]:
        """What the provider decided about an order, in order."""
        return [entry for entry in invariants.provider_log(self.home) if entry["order_id"] == order["id"]]

    async def dial(self, **dials: object) -> None:
        """Turn the provider's dials."""
        response = await self.http.post(f"{self.urls['psp']}/dials", json=dials)
        assert response.status_code == 200, response.text

    # -- processes

    async def plumbline(self, *words: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run the command line next to this stack, as a person would; answers the exit code and all it printed."""
        bare = {name: value for name, value in os.environ.items() if not name.startswith("APP_") and name not in _ADDRESSES}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", *words, cwd=ROOT, env=bare | {"PLUMBLINE_HOME": str(self.home)} | dict(env or {}),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    def pids(self, role: str) -> list[int]:
        """The live processes of a role."""
        return [p["pid"] for p in read_stack(self.home)["processes"] if p["role"] == role and _runs(p["pid"])]

    def signal(self, role: str, number: signal.Signals) -> list[int]:
        """Send a signal to every process of a role; answers their pids."""
        pids = self.pids(role)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    async def kill(self, role: str) -> None:
        """kill -9 every process of a role, and wait until others stand in their places and are ready."""
        await self.replaced(role, self.signal(role, signal.SIGKILL))

    async def replaced(self, role: str, gone: Iterable[int]) -> None:
        """Wait until no process of `gone` is left and the role is ready again."""
        gone = set(gone)

        async def look() -> bool:
            found = [p for p in read_stack(self.home)["processes"] if p["role"] == role]
            return not any(p["pid"] in gone or not _runs(p["pid"]) for p in found) and all([await self._ready(p["ops_url"]) for p in found])

        await until(look, f"another {role} is ready")

    async def metrics(self, role: str) -> list[str]:
        """The metrics page of every process of a role."""
        found = [p["ops_url"] for p in read_stack(self.home)["processes"] if p["role"] == role]
        return [(await self.http.get(f"{url}/metrics")).text for url in found]

    async def _ready(self, ops_url: str | None) -> bool:
        if ops_url is None:
            return True
        try:
            return (await self.http.get(f"{ops_url}/health/ready")).status_code == 200
        except httpx.HTTPError:
            return False

    # -- the truth

    async def quiet(self, *, parked: Iterable[str] = ()) -> None:
        """Wait until every order has ended and every event is applied or parked: however long, as long as it gets less."""
        parked = list(parked)

        async def look() -> list[str]:
            return await invariants.every_order_has_ended(self.database, parked=parked) + await invariants.unapplied(self.database)

        left = await look()
        while left:

            async def less(before: int = len(left)) -> bool:
                nonlocal left
                left = await look()
                return len(left) < before

            try:
                await until(less, "the system gets quieter")
            except AssertionError as error:
                raise AssertionError(f"{error}: {len(left)} left, such as {left[:3]}") from None

    async def holds(self, *, parked: Iterable[str] = ()) -> None:
        """Wait until the system is quiet, then check every invariant of `tests/support/invariants.py`."""
        parked = list(parked)
        await self.quiet(parked=parked)
        violated = await self.violated(parked=parked)
        assert not violated, json.dumps({name: found[:5] for name, found in violated.items()}, indent=2)

    async def violated(self, *, parked: Iterable[str] = ()) -> dict[str, list[str]]:
        """Invariant → what breaks it, as things are now."""
        return await invariants.held(self.database, invariants.provider_log(self.home), invariants.retries_begun(self.home), parked=parked)


def _runs(pid: int) -> bool:
    try:
        return b"\0" in Path(f"/proc/{pid}/cmdline").read_bytes()  # a zombie has none
    except OSError:
        return False


@contextmanager
def running_shop(*, api: int = 1, env: Mapping[str, str] | None = None) -> Iterator[Path]:
    """A stack of its own in a temporary folder, without rate limits; answers the state folder."""
    with tempfile.TemporaryDirectory(prefix="plumbline-story-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        try:
            with _started(home, api=api, env=dict(env or SHORT_TIERS)):
                yield home
        finally:
            EmbeddedPostgres(home, 0).wipe()  # as root its data is elsewhere


@contextmanager
def _started(home: Path, *, api: int, env: Mapping[str, str]) -> Iterator[None]:
    for attempt in range(_ATTEMPTS_FOR_PORTS):
        port = free_base_port()
        if attempt == 0:
            copy_template(home, port=port + 100)
        stack = running_stack(home, port, api=api, kafka=_BROKER, profile="load", env=env, timeout_s=_START_S)
        try:
            stack.__enter__()
        except StackError as error:
            # Another test run may have taken a port since it was found free.
            if "cannot be had" not in str(error) or attempt == _ATTEMPTS_FOR_PORTS - 1:
                raise
            continue
        break
    try:
        yield
    finally:
        stack.__exit__(None, None, None)


@asynccontextmanager
async def open_shop(home: Path) -> AsyncIterator[Shop]:
    """The stack that runs from `home`, with the provider's magic totals on (13 declined, 17 failing)."""
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
    urls = read_stack(home)["urls"]
    database = await asyncpg.connect(urls["database"])
    try:
        await database.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        async with httpx.AsyncClient(base_url=urls["api"], timeout=10, limits=limits) as http:
            shop = Shop(home, http, database)
            await shop.dial(magic_totals=True, heal=False)
            yield shop
    finally:
        await database.close()
