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
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

import asyncpg
import orjson
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.sql.expression import ClauseElement

from service.errors import DependencyUnavailable, Overloaded
from service.foundation import metrics, tracing
from service.foundation.backoff import full_jitter
from service.foundation.breaker import Breaker
from service.foundation.iam import PodIdentity
from service.foundation.log import get_logger
from service.settings import DatabaseSettings, secret_now

log = get_logger(__name__)
T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_CONNECT_FAILURES_TO_OPEN: Final = 3
_PROBE_S: Final = 0.25
# With one of these off, an answered order may be gone after a crash (docs/guarantees.md): start-up refuses.
_DURABLE: Final = ["fsync", "full_page_writes", "synchronous_commit"]
_OFF: Final = "SELECT name FROM unnest($1::text[]) AS name WHERE current_setting(name) = 'off'"
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
        if nothing := [bind.key for bind in compiled.binds.values() if bind.value is None and not bind.required]:
            # It could not be told from a parameter that is still to come: say null(), which is text.
            raise ValueError(f"literal None as {nothing}: use sqlalchemy.null()")
        self._defaults = {name: value for name, value in compiled.params.items() if value is not None}

    def __call__(self, **values: object) -> tuple[Any, ...]:
        """SQL, then values. Raises `KeyError` for a missing or unknown name."""
        merged = {**self._defaults, **values}
        if len(merged) > len(set(self._order)):
            raise KeyError(f"unknown parameters {sorted(set(merged) - set(self._order))}")
        return (self.sql, *[merged[name] for name in self._order])


class Database:
    """One pool of connections to the one database that holds the truth.

    asyncpg's own pool serves the last waiter first and resets a connection with a round trip (docs/adr/0020);
    here a first-in-first-out semaphore is the queue and a list holds what is free.
    """

    def __init__(self, settings: DatabaseSettings, *, application: str, queue_timeout_ms: int | None = None) -> None:
        self._settings = settings
        self._application = application
        self._identity = PodIdentity()
        self._queue_timeout_s = (queue_timeout_ms or settings.queue_timeout_ms) / 1000
        self._slots = asyncio.Semaphore(settings.pool_size)
        self._free: list[Connection] = []
        self._all: set[Connection] = set()
        self._in_use = 0
        self._opened = False
        self._probe: asyncio.Task[None] | None = None
        self.lost_since: float | None = None
        self.breaker = Breaker("postgresql-connect", streak=_CONNECT_FAILURES_TO_OPEN, open_s=3600, changed=metrics.show_breaker)
        metrics.show_breaker(self.breaker.name, "closed")

    async def open(self) -> None:
        """Open every connection of the pool. Raises `DependencyUnavailable` if the server cannot be reached, or may forget a commit."""
        try:
            self._free = list(await asyncio.gather(*(self._connect() for _ in range(self._settings.pool_size))))
        except (*CONNECTION_ERRORS, TimeoutError, asyncpg.PostgresError) as error:
            await self.close()
            raise DependencyUnavailable(f"PostgreSQL cannot be reached: {type(error).__name__}") from error
        self._opened = True
        async with self.connection() as connection:
            off = [row["name"] for row in await connection.fetch(_OFF, _DURABLE)]
        if off:
            await self.close()
            raise DependencyUnavailable(f"PostgreSQL runs with {', '.join(off)} off and may lose what was answered: turn it on, then start again")
        metrics.db_pool_size.set(self._settings.pool_size)
        metrics.db_pool_in_use.set_function(lambda: self._in_use)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Close the pool; connections still busy after `timeout_s` are cut."""
        self._opened = False
        if self._probe is not None:
            self._probe.cancel()
        free, self._free = self._free, []
        with contextlib.suppress(TimeoutError, asyncpg.PostgresError, *CONNECTION_ERRORS):
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(connection.close() for connection in free))
        for connection in self._all:
            connection.terminate()
        self._all.clear()

    def connection(self) -> Lease:
        """A connection in autocommit for the block. A statement that timed out or was cancelled costs the connection.

        Raises `Overloaded` (none free in time) or `DependencyUnavailable`.
        """
        return Lease(self, transactional=False)

    def transaction(self) -> Lease:
        """A READ COMMITTED transaction: committed at the end of the block, rolled back by any exception."""
        return Lease(self, transactional=True)

    async def take(self) -> Connection:
        """A connection of the caller's own until `give_back`; use `connection()` or `transaction()`."""
        await self._take_slot()
        try:
            while self._free:
                connection = self._free.pop()
                if not connection.is_closed():
                    break
                self._all.discard(connection)
            else:
                connection = await self._reconnect()
        except BaseException:
            self._slots.release()
            raise
        self._in_use += 1
        return connection

    def give_back(self, connection: Connection, *, broken: bool) -> None:
        """Hand it to the next; a broken one (or one left inside a transaction) is cut, and the next caller opens another."""
        # Nothing of ours outlives a transaction: locks are transaction-level, settings came with the connection, no LISTEN,
        # no temporary tables. So asyncpg's reset, a round trip, is not needed: test_db.py asks a used session.
        self._in_use -= 1
        if broken or connection.is_in_transaction():
            connection.terminate()
        if connection.is_closed() or not self._opened:
            self._all.discard(connection)
        else:
            self._free.append(connection)
        self._slots.release()

    def note_loss(self) -> None:
        """The database was found to be away."""
        if self.lost_since is None:
            self.lost_since = time.monotonic()

    def _connect_arguments(self) -> dict[str, Any]:
        s = self._settings
        return login(s, self._identity) | {
            "timeout": s.acquire_timeout_ms / 1000,
            "command_timeout": s.command_timeout_ms / 1000,
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
        if not self._opened or self.breaker.state == "open":
            raise DependencyUnavailable("the database is not available")
        if not self._slots.locked():
            await self._slots.acquire()
            return
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise Overloaded("no database connection was free in time") from error
        metrics.db_pool_wait.observe(time.monotonic() - started)

    async def _connect(self) -> Connection:
        async with asyncio.timeout(self._settings.acquire_timeout_ms / 1000):
            connection: Connection = await asyncpg.connect(**self._connect_arguments())
            await _set_codecs(connection)
        self._all.add(connection)
        return connection

    async def _reconnect(self) -> Connection:
        try:
            connection = await self._connect()
        except (*CONNECTION_ERRORS, TimeoutError, asyncpg.PostgresError) as error:
            self.note_loss()
            metrics.db_connect_errors.inc()
            self.breaker.failed()
            self._probe_if_open()
            raise DependencyUnavailable("the database is not available") from error
        self.breaker.succeeded()
        self.lost_since = None
        return connection

    def _probe_if_open(self) -> None:
        if self.breaker.state == "open" and (self._probe is None or self._probe.done()):
            self._probe = asyncio.create_task(self._probe_until_back(), name="database-probe")

    async def _probe_until_back(self) -> None:
        """While the breaker is open, one task tries to connect; callers fail at once meanwhile."""
        arguments = self._connect_arguments() | {"timeout": 1.0}
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


class Lease:
    """`async with` around one use of a connection; a bare class, since every request pays for it."""

    __slots__ = ("_connection", "_db", "_traced", "_transaction", "_transactional")

    def __init__(self, db: Database, *, transactional: bool) -> None:
        self._db, self._transactional = db, transactional

    async def __aenter__(self) -> Connection:
        connection = self._connection = await self._db.take()
        self._traced = tracing.recording()
        if self._traced:
            connection.add_query_logger(tracing.note_statement)
        if self._transactional:
            self._transaction = connection.transaction()
            try:
                await self._transaction.start()
            except BaseException as error:
                self._end(error)
                raise self._as_ours(error) from error
        return connection

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        try:
            if self._transactional and not self._connection.is_closed():
                await (self._transaction.commit() if error is None else self._roll_back(error))
        except BaseException as late:
            self._end(late)
            raise self._as_ours(late) from late
        self._end(error)
        if error is not None and (ours := self._as_ours(error)) is not error:
            raise ours from error

    async def _roll_back(self, error: BaseException) -> None:
        if not _is_fatal(error):
            await self._transaction.rollback()

    def _end(self, error: BaseException | None) -> None:
        if self._traced:
            self._connection.remove_query_logger(tracing.note_statement)
        # After a timeout or a cancellation the protocol's state is unknown (or the primary was demoted): never hand it out again.
        self._db.give_back(self._connection, broken=error is not None and _is_fatal(error))

    def _as_ours(self, error: BaseException) -> BaseException:
        if isinstance(error, TimeoutError):
            return DependencyUnavailable("the database did not answer in time")
        if isinstance(error, CONNECTION_ERRORS):
            self._db.note_loss()
            return DependencyUnavailable("the database is not available")
        return error


def _is_fatal(error: BaseException) -> bool:
    return isinstance(error, TimeoutError | asyncio.CancelledError | asyncpg.ReadOnlySQLTransactionError)


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


def _dump_json(value: object) -> str:
    return orjson.dumps(value).decode()


def login(settings: DatabaseSettings, identity: PodIdentity | None = None) -> dict[str, Any]:
    """Arguments of `asyncpg.connect` that say where and as whom: the password as it is now, or an IAM token a connection."""
    url = secret_now("DATABASE_URL", settings.url)
    found: dict[str, Any] = {"dsn": url, "ssl": False if settings.ssl == "disable" else settings.ssl}
    if settings.auth == "iam":
        place, signer = urlsplit(url), identity or PodIdentity()
        found["user"] = settings.iam_user
        found["password"] = lambda: signer.database_token(place.hostname or "", place.port or 5432, settings.iam_user)
    return found


@contextlib.contextmanager
def driver_errors_as(error: Callable[[], Exception]) -> Any:
    """Turn data errors the driver or server found in the input into `error()`, counted as a validation gap."""
    try:
        yield
    except (asyncpg.DataError, asyncpg.PostgresSyntaxError, OverflowError) as found:
        metrics.validation_gap.inc()
        raise error() from found
