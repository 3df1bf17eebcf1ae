"""PostgreSQL: one pool, visible transactions, and Core statements compiled once.

A request waits for a connection in our own first-in-first-out queue (asyncpg's pool hands them out
last-in-first-out: waiters starve under overload), and waits shortly. What fails here is
`DependencyUnavailable` or `Overloaded`, both 503 and safe to repeat.
Tests: tests/integration/test_db.py, tests/unit/test_statements.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import asyncpg
import orjson
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.sql.expression import ClauseElement

from service.errors import DependencyUnavailable, Overloaded
from service.foundation import metrics
from service.foundation.backoff import full_jitter
from service.foundation.breaker import Breaker
from service.foundation.log import get_logger
from service.settings import DatabaseSettings

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

log = get_logger(__name__)
T = TypeVar("T")
Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

_RELEASE_TIMEOUT_S: Final = 2.0
_CONNECT_FAILURES_TO_OPEN: Final = 3
_PROBE_S: Final = 0.25
_CONTENTION_TRIES: Final = 3

# Refused, reset, shut down, failed over, read-only: the server is the problem, not the statement.
CONNECTION_ERRORS: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
# Somebody else's transaction is in the way; the same statement may work in a moment.
CONTENTION_ERRORS: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)


class Statement:
    """A SQLAlchemy Core statement compiled once at import for asyncpg.

    `connection.fetchrow(*SELECT_ORDER(id=order_id))`: calling it gives the SQL and the values in its order.
    Refuses text that SQLAlchemy would only finish at execution (`IN` lists): write `= ANY(bindparam)`.
    """

    __slots__ = ("_defaults", "_order", "sql")

    def __init__(self, clause: ClauseElement) -> None:
        compiled: Any = clause.compile(dialect=PGDialect_asyncpg())  # type: ignore[no-untyped-call]
        self.sql = str(compiled)
        if "POSTCOMPILE" in self.sql:
            raise ValueError(f"not a fixed text, use = ANY(bindparam): {self.sql}")
        self._order = tuple(compiled.positiontup or ())
        self._defaults = {name: value for name, value in compiled.params.items() if value is not None}

    def __call__(self, **values: object) -> tuple[Any, ...]:
        """SQL, then values. Raises `KeyError` for a missing or unknown name."""
        merged = {**self._defaults, **values}
        if len(merged) > len(set(self._order)):
            raise KeyError(f"unknown parameters {sorted(set(merged) - set(self._order))}")
        return (self.sql, *[merged[name] for name in self._order])


class Database:
    """One pool of connections to the one database that holds the truth."""

    def __init__(self, settings: DatabaseSettings, *, application: str, queue_timeout_ms: int | None = None) -> None:
        self._settings = settings
        self._application = application
        self._queue_timeout_s = (queue_timeout_ms or settings.queue_timeout_ms) / 1000
        self._slots = asyncio.Semaphore(settings.pool_size)
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._probe: asyncio.Task[None] | None = None
        self.lost_since: float | None = None
        self.breaker = Breaker("postgresql-connect", streak=_CONNECT_FAILURES_TO_OPEN, open_s=3600, changed=metrics.show_breaker)

    async def open(self) -> None:
        """Open every connection of the pool. Raises `DependencyUnavailable` if the server cannot be reached."""
        size = self._settings.pool_size
        try:
            self._pool = await asyncpg.create_pool(**self._connect_arguments(), min_size=size, max_size=size, max_inactive_connection_lifetime=0)
        except (*CONNECTION_ERRORS, TimeoutError, asyncpg.PostgresError) as error:
            raise DependencyUnavailable(f"PostgreSQL cannot be reached: {type(error).__name__}") from error
        metrics.db_pool_size.set(size)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Close the pool; connections still busy after `timeout_s` are cut."""
        if self._probe is not None:
            self._probe.cancel()
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), timeout_s)
            except TimeoutError:
                self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit. A statement that timed out or was cancelled costs the connection, not the next caller."""
        await self._take_slot()
        try:
            connection = await self._acquire()
            metrics.db_pool_in_use.inc()
            try:
                yield connection
            except (TimeoutError, asyncio.CancelledError, asyncpg.ReadOnlySQLTransactionError):
                # Its protocol state is unknown (or it talks to a demoted primary): never hand it out again.
                connection.terminate()
                raise
            finally:
                metrics.db_pool_in_use.dec()
                await self._release(connection)
        except TimeoutError as error:
            raise DependencyUnavailable("the database did not answer in time") from error
        except CONNECTION_ERRORS as error:
            self._note_loss()
            raise DependencyUnavailable("the database is not available") from error
        finally:
            self._slots.release()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A READ COMMITTED transaction: committed at the end of the block, rolled back by any exception."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    def _connect_arguments(self) -> dict[str, Any]:
        s = self._settings
        return {
            "dsn": s.url.get_secret_value(),
            "timeout": s.acquire_timeout_ms / 1000,
            "command_timeout": s.command_timeout_ms / 1000,
            "ssl": _ssl(s.ssl),
            "init": _set_codecs,
            "reset": _leave_nothing_behind,
            # Generic plans and a cheap random page: the hot statements were measured with both (docs/adr/0005).
            "server_settings": {
                "application_name": self._application,
                "statement_timeout": str(s.statement_timeout_ms),
                "lock_timeout": str(s.lock_timeout_ms),
                "idle_in_transaction_session_timeout": str(s.idle_in_transaction_timeout_ms),
                "plan_cache_mode": "force_generic_plan",
                "random_page_cost": "1.1",
                "jit": "off",
            },
        }

    async def _take_slot(self) -> None:
        if self.breaker.state == "open":
            raise DependencyUnavailable("the database is not available")
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise Overloaded("no database connection was free in time") from error
        metrics.db_pool_wait.observe(time.monotonic() - started)

    async def _acquire(self) -> Connection:
        if self._pool is None:
            raise DependencyUnavailable("the database pool is not open")
        try:
            connection = await self._pool.acquire(timeout=self._settings.acquire_timeout_ms / 1000)
        except (*CONNECTION_ERRORS, TimeoutError, asyncpg.PostgresError) as error:
            self._note_loss()
            metrics.db_connect_errors.inc()
            self.breaker.failed()
            if self.breaker.state == "open":
                self._start_probe()
            raise DependencyUnavailable("the database is not available") from error
        self.breaker.succeeded()
        self.lost_since = None
        return connection

    async def _release(self, connection: Connection) -> None:
        if self._pool is None:
            return
        try:
            await self._pool.release(connection, timeout=_RELEASE_TIMEOUT_S)
        except (*CONNECTION_ERRORS, TimeoutError, asyncpg.PostgresError):
            connection.terminate()

    def _note_loss(self) -> None:
        if self.lost_since is None:
            self.lost_since = time.monotonic()

    def _start_probe(self) -> None:
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._probe_until_back(), name="database-probe")

    async def _probe_until_back(self) -> None:
        """While the breaker is open, one task tries to connect; callers fail at once meanwhile."""
        arguments = {k: v for k, v in self._connect_arguments().items() if k not in ("init", "reset")} | {"timeout": 1.0}
        while True:
            await asyncio.sleep(_PROBE_S)
            try:
                connection = await asyncpg.connect(**arguments)
                await connection.fetchval("SELECT 1")
            except (*CONNECTION_ERRORS, TimeoutError, asyncpg.PostgresError):
                continue
            connection.terminate()
            self.breaker.succeeded()
            self.lost_since = None
            log.info("database.back")
            return


async def retry_contention(attempt: Callable[[], Awaitable[T]]) -> T:
    """Run `attempt` again (≤ 3 times, 10–100 ms full jitter) while another transaction is in its way.

    `attempt` must open and finish its own transaction. Raises `Overloaded` when the last one failed too.
    """
    for number in range(_CONTENTION_TRIES):
        try:
            return await attempt()
        except CONTENTION_ERRORS as error:
            if number == _CONTENTION_TRIES - 1:
                raise Overloaded("too much contention on the same rows") from error
            await asyncio.sleep(0.01 + full_jitter(number, base_s=0.03, cap_s=0.09, uniform=random.uniform))
    raise AssertionError("unreachable")


async def _set_codecs(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    # SQLAlchemy's bind processors do not run (only its text is used), so JSON is taught to asyncpg.
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=_dump_json, decoder=orjson.loads)


async def _leave_nothing_behind(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Instead of asyncpg's reset (one round trip, ~100 µs of server CPU a request): nothing of ours outlives a transaction.

    Locks are transaction-level, settings come with the connection, no LISTEN, no temporary tables, no cursors;
    tests/integration/test_db.py asks a used session for each of these.
    """
    if connection.is_in_transaction():
        connection.terminate()


def _dump_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _ssl(mode: str) -> ssl.SSLContext | str | bool:
    return False if mode == "disable" else mode


@contextlib.contextmanager
def driver_errors_as(error: Callable[[], Exception]) -> Any:
    """Turn data errors the driver or server found in the input into `error()`, counted as a validation gap."""
    try:
        yield
    except (asyncpg.DataError, asyncpg.PostgresSyntaxError, OverflowError) as found:
        metrics.validation_gap.inc()
        raise error() from found
