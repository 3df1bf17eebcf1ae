"""pgbouncer in front, in transaction mode: what it saves, and which habits of this service break behind it.

Debian's 1.18, which knows no prepared statements in this mode (1.21 and later do). Where it is missing the error says how to get it.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg

from bench.database.findings import Bars, Chapter, Finding, Shown, Table, ratio
from bench.database.lab import SESSION, Lab
from bench.errors import BenchError
from bench.floor_sql import pgbench_script
from service.dev.children import last_line, spawn, stop

_POOL, _CLIENTS, _IGNORED = 8, 64, "plan_cache_mode,random_page_cost,jit,statement_timeout,lock_timeout,idle_in_transaction_session_timeout"
_INI: Final = """[databases]
{database} = host=127.0.0.1 port={server_port} dbname={database} user=plumbline password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
ignore_startup_parameters = extra_float_digits{ignored}
"""
_SKUS: Final = ("SKU-0101", "SKU-0202")
_ASK: Final = """
import asyncio, sys, asyncpg
async def ask():
    connection = await asyncpg.connect(sys.argv[1], ssl=False)
    try:
        await connection.fetchval("SELECT count(*) FROM product WHERE sku = $1", "SKU-0001")
        return "works"
    except asyncpg.PostgresError as error:
        return f"refused: {str(error).splitlines()[0]}"
    finally:
        connection.terminate()
print(asyncio.run(ask()))
"""
_LOCK: Final = "SELECT pg_try_advisory_lock(42)"


@asynccontextmanager
async def _pooled(lab: Lab, database: str, *, size: int, ignored: str = "") -> AsyncIterator[int]:
    """A pgbouncer with `size` server connections; its port."""
    binary = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if binary is None:
        raise BenchError("pgbouncer is missing: `apt-get install pgbouncer`")
    port = lab.postgres.port + 9
    folder = lab.postgres.folder  # the server's unprivileged account may read there: pgbouncer refuses to be root
    config = folder / "pgbouncer.ini"
    password = lab.postgres.url.split(":")[2].split("@")[0]
    text = _INI.format(
        database=database, server_port=lab.postgres.port, password=password, port=port, size=size, ignored=f", {ignored}" if ignored else ""
    )
    config.write_text(text)
    config.chmod(0o644)
    log = lab.home / "pgbouncer.log"
    process = spawn([binary, config], log=log, account=lab.postgres.account, directory=folder)
    try:
        await _await_port(port, process, log)
        yield port
    finally:
        await asyncio.to_thread(stop, process, timeout_s=10)


async def _await_port(port: int, process: Any, log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise BenchError(f"pgbouncer did not start: {last_line(log)}; see {log}")


class Behind:
    """Clients of one database, directly or through the pooler with a single server connection."""

    def __init__(self, lab: Lab, database: str, port: int) -> None:
        self.lab, self.database, self.port = lab, database, port

    @asynccontextmanager
    async def two(self, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
        """Two clients that are neighbours behind the pooler."""
        asked = {"host": "127.0.0.1", "port": self.port, "user": "plumbline", "password": self.lab.postgres.url.split(":")[2].split("@")[0]}
        made = [await asyncpg.connect(**asked, database=self.database, ssl=False, timeout=10, **options) for _ in range(2)]
        try:
            yield made[0], made[1]
        finally:
            for connection in made:
                connection.terminate()

    async def parameters(self) -> str:
        """The service's planner settings travel with the connection."""
        async with self.two(server_settings=SESSION) as (one, _):
            return f"plan_cache_mode = {await one.fetchval('SHOW plan_cache_mode')}"

    async def prepared(self) -> str:
        """asyncpg's default: a named statement lives in the session. Two processes, for each numbers its own."""
        url = self.lab.url(self.database).replace(f":{self.lab.postgres.port}/", f":{self.port}/")
        for _ in range(2):
            asked = [sys.executable, "-c", _ASK, url]
            process = await asyncio.create_subprocess_exec(*asked, stdout=asyncio.subprocess.PIPE)
            said = (await process.communicate())[0].decode().strip()
            if said != "works":
                return said
        return "works"

    async def unnamed(self) -> str:
        """Without a statement cache, in autocommit: the statement and its values travel apart."""
        async with self.two(statement_cache_size=0) as pair:

            async def ask(connection: Any) -> int:
                refused = 0
                for number in range(200):
                    try:
                        found = await connection.fetchval("SELECT $1::int", number)
                        refused += found != number
                    except asyncpg.PostgresError:
                        refused += 1
                return refused

            refused = sum(await asyncio.gather(*map(ask, pair)))
        return f"{refused} of 400 refused or answered wrongly"

    async def in_transaction(self) -> str:
        """The same inside BEGIN and COMMIT."""
        async with self.two(statement_cache_size=0) as pair:

            async def ask(connection: Any) -> None:
                for number in range(50):
                    async with connection.transaction():
                        assert await connection.fetchval("SELECT $1::int", number) == number

            await asyncio.gather(*map(ask, pair))
        return "works"

    async def session_lock(self) -> str:
        """The relay's: one active process by a lock of its session."""
        async with self.two(statement_cache_size=0) as (one, other):
            held = [await connection.fetchval(_LOCK) for connection in (one, other)]
            await one.execute("SELECT pg_advisory_unlock_all()")
        return "one holds it" if held == [True, False] else f"both hold it: {held}"

    async def transaction_lock(self) -> str:
        """Cancel's: a lock of its transaction."""
        async with self.two(statement_cache_size=0) as (one, other):

            async def hold(connection: Any) -> None:
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock(43)")

            await asyncio.gather(hold(one), hold(other))
        return "works"

    async def set_leaks(self) -> str:
        """A setting of one client."""
        async with self.two(statement_cache_size=0) as (one, other):
            await one.execute("SET work_mem = '7MB'")
            seen = await other.fetchval("SHOW work_mem")
            await one.execute("RESET work_mem")
        return "stays with its client" if seen != "7MB" else "the neighbour has it"


_HABITS: Final[tuple[tuple[str, str, Callable[[Behind], Awaitable[str]]], ...]] = (
    ("start-up parameters (generic plans, timeouts)", "every session", Behind.parameters),
    ("named prepared statements", "every statement (asyncpg's cache)", Behind.prepared),
    ("no statement cache, autocommit", "the create", Behind.unnamed),
    ("no statement cache, in a transaction", "cancel, ship, workers", Behind.in_transaction),
    ("lock of a session", "the relay's single writer", Behind.session_lock),
    ("lock of a transaction", "cancel and restock under a key", Behind.transaction_lock),
    ("SET", "nobody here", Behind.set_leaks),
)


async def _try(behind: Behind, habit: Callable[[Behind], Awaitable[str]]) -> str:
    try:
        return await habit(behind)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, AssertionError) as error:
        return f"refused: {str(error).splitlines()[0][:90]}"


async def run(lab: Lab) -> Finding:
    """Each habit directly, behind the pooler, and behind it told to ignore what it does not know; then throughput."""
    found = Finding()
    async with lab.copy("pooled") as name:
        direct = Behind(lab, name, lab.postgres.port)
        said = [[await _try(direct, habit)] for _, _, habit in _HABITS]
        async with _pooled(lab, name, size=1) as port:
            for row, (_, _, habit) in zip(said, _HABITS, strict=True):
                row.append(await _try(Behind(lab, name, port), habit))
        async with _pooled(lab, name, size=1, ignored=_IGNORED) as port:
            said[0].append(await _try(Behind(lab, name, port), Behind.parameters))
        async with _pooled(lab, name, size=_POOL) as port:
            count = await _backends(lab, name, port)
            taken = await _throughput(lab, name, port)
    found.witness = [
        Table(
            ("habit", "who has it here", "direct", "behind pgbouncer, transaction mode"),
            [(h[0], h[1], *row[:2]) for h, row in zip(_HABITS, said, strict=True)],
        ),
        Table(
            ("", "answer"),
            [("start-up parameters with `ignore_startup_parameters`", said[0][2]), (f"server connections for {_CLIENTS} clients", count)],
        ),
    ]
    found.ratios = [
        ratio(f"orders a second, {_CLIENTS} clients: pooled ÷ direct, both without prepared statements", taken["direct"], taken["pooled"]),
        ratio(f"orders a second, {_CLIENTS} clients: pooled ÷ direct with prepared statements", taken["prepared"], taken["pooled"]),
    ]
    words = ("direct, not prepared", "direct, prepared")
    found.bars = [
        Bars(
            f"Orders a second of {_CLIENTS} clients behind pgbouncer, by what they had before",
            "×",
            [(w, r.median) for w, r in zip(words, found.ratios, strict=True)],
        )
    ]
    found.shown = [Shown("pgbouncer.ini", _INI.replace("{password}", "…"))]
    return found


async def _backends(lab: Lab, name: str, port: int) -> int:
    """Server connections while 64 clients each ask something."""
    url = lab.url(name).replace(f":{lab.postgres.port}/", f":{port}/")
    clients = [await asyncpg.connect(url, ssl=False, statement_cache_size=0) for _ in range(_CLIENTS)]
    await asyncio.gather(*(client.execute("SELECT pg_sleep(0.05)") for client in clients))
    async with lab.connect() as connection:
        count = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = $1", name)
    for client in clients:
        client.terminate()
    return int(count)


async def _throughput(lab: Lab, name: str, port: int) -> dict[str, list[float]]:
    async with lab.connect() as connection:
        prices = [await connection.fetchval("SELECT price_minor FROM product WHERE sku = $1", sku) for sku in _SKUS]
    script = pgbench_script(list(_SKUS), [1, 2], prices)

    async def place(mode: str, through: int) -> float:
        options = ("-M", mode, "-t", "8")
        return 1 / await asyncio.to_thread(lab.pgbench, name, script, clients=_CLIENTS, options=options, port=through)

    arms = {"direct": ("simple", 0), "pooled": ("simple", port), "prepared": ("prepared", 0)}
    return await lab.interleave({key: (lambda arm=arm: place(*arm)) for key, arm in arms.items()}, rounds=4)


CHAPTER: Final = Chapter(
    name="pooler",
    title="pgbouncer in front, in transaction mode",
    question="What would a pooler save, and what would have to change before one may stand in front?",
    reading=(
        "A server connection is lent for a transaction, so whatever lives in a session breaks: prepared statements, the relay's lock (both would be "
        "the single writer: O5 would hold, at twice the work), settings given at the start. What lives in a transaction works. "
        "pgbouncer 1.21 and later carry named prepared statements; the planner settings would move to `ALTER ROLE … SET`, and the relay would keep a "
        "direct connection. The service does without: its processes are few, each with a bounded pool, and their sum is checked at start-up."
    ),
    other=(
        "Many small processes (functions, one worker a container, a language without a pool in the process): there the pooler is the only place "
        "that sees them all. Session mode, where only the number of idle clients hurts."
    ),
    run=run,
)
