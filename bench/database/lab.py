"""A PostgreSQL of its own with a shop of N orders, thrown away afterwards; and the three ways to look: plan, counters, rounds.

Experiments that write work on a copy of the shop (`copy`), so that none sees what another left.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from bench.database.plans import explain_generic
from bench.errors import BenchError
from bench.servers import free_base_port
from service.dev.postgres import EmbeddedPostgres
from service.dev.seed import seed_catalogue
from service.dev.seed_orders import seed_orders
from service.foundation.db import Connection, Database
from service.migrations import upgrade
from service.settings import load_settings

# As the service's sessions: service/foundation/db.py.
SESSION: Final = {"plan_cache_mode": "force_generic_plan", "random_page_cost": "1.1", "jit": "off"}
_TPS: Final = re.compile(r"tps = ([0-9.]+)")
_BUFFERS: Final = re.compile(r"Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?")


@dataclass(slots=True)
class Lab:
    """Where experiments run."""

    home: Path
    postgres: EmbeddedPostgres
    orders: int
    say: Callable[[str], None]
    rounds: int = 7
    last_cpu_s: float = 0.0  # of the last pgbench, load generator and backends together

    def url(self, database: str = "plumbline") -> str:
        """Of a database of this server."""
        return re.sub(r"/plumbline$", f"/{database}", self.postgres.url)

    @asynccontextmanager
    async def connect(self, database: str = "plumbline", **settings: str) -> AsyncIterator[Connection]:
        """A connection with the service's planner settings."""
        connection = await asyncpg.connect(self.url(database), ssl=False, server_settings=SESSION | settings)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def crowd(self, database: str, count: int) -> AsyncIterator[list[Connection]]:
        """`count` connections."""
        made = [await asyncpg.connect(self.url(database), ssl=False, server_settings=SESSION) for _ in range(count)]
        try:
            yield made
        finally:
            await asyncio.gather(*(connection.close() for connection in made))

    @asynccontextmanager
    async def copy(self, name: str) -> AsyncIterator[str]:
        """The shop once more, to write into; gone afterwards."""
        self.postgres.run("psql", "-XAtqc", f"CREATE DATABASE {name} TEMPLATE plumbline STRATEGY file_copy", database="postgres")
        try:
            yield name
        finally:
            self.postgres.run("psql", "-XAtqc", f"DROP DATABASE {name} WITH (FORCE)", database="postgres")

    async def interleave(self, arms: Mapping[str, Callable[[], Awaitable[object]]], rounds: int = 0) -> dict[str, list[float]]:
        """Seconds of every arm in every round, after one that does not count; the order within a round is shuffled."""
        taken: dict[str, list[float]] = {name: [] for name in arms}
        order, rng = list(arms), random.Random(1)
        for number in range((rounds or self.rounds) + 1):
            rng.shuffle(order)
            for name in order:
                begin = time.perf_counter()
                told = await arms[name]()
                if number:
                    taken[name].append(told if isinstance(told, float) else time.perf_counter() - begin)
        return taken

    def pgbench(self, database: str, script: str, *, clients: int, options: Sequence[str], port: int = 0, **session: str) -> float:
        """Transactions a second of a script, by PostgreSQL's own load generator; `port`: through a pooler there."""
        path = self.home / "script.pgbench"
        path.write_text(script)
        url = self.url(database) if not port else re.sub(r":\d+/", f":{port}/", self.url(database))
        command = [str(self.postgres.binaries / "pgbench"), "-n", "-c", str(clients), "-j", str(min(2, clients))]
        environment = {"PATH": os.environ["PATH"]}
        if not port:  # a pooler refuses start-up parameters it does not know
            environment["PGOPTIONS"] = " ".join(f"-c {name}={value}" for name, value in (SESSION | session).items())
        begin = self._spent_s()
        done = subprocess.run([*command, *options, "-f", str(path), url], capture_output=True, text=True, env=environment, timeout=900, check=False)
        found = _TPS.search(done.stdout)
        if done.returncode or found is None:
            raise BenchError(f"pgbench ended with {done.returncode}: {done.stderr.strip()[-600:]} {done.stdout.strip()[-300:]}")
        self.last_cpu_s = self._spent_s() - begin
        return float(found[1])

    def _spent_s(self) -> float:
        """Processor time of children that have ended: ours (load generators) and the server's (backends)."""
        time.sleep(0.05)  # a backend ends a moment after its client
        fields = Path(f"/proc/{self.postgres.running().pid}/stat").read_text().rpartition(")")[2].split()
        own = os.times()
        return own.children_user + own.children_system + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


async def explain(connection: Connection, sql: str, *values: object, wal: bool = False) -> str:
    """EXPLAIN (ANALYZE, BUFFERS) as text, without the times: they differ from run to run, and a ratio says more."""
    options = "ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF, SETTINGS OFF" + (", WAL" if wal else "")
    text = "\n".join(await explain_generic(connection, options, sql, values))
    return text.split("\nPlanning:")[0]


def buffers(plan: str) -> int:
    """Pages the statement touched: those of the top node, which holds its children's."""
    found = _BUFFERS.search(plan)
    return sum(int(number or 0) for number in found.groups()) if found else 0


async def wal_bytes(connection: Connection, act: Callable[[], Awaitable[object]]) -> int:
    """What `act` wrote to the log. Nobody else may write meanwhile."""
    before = await connection.fetchval("SELECT pg_current_wal_insert_lsn()")
    await act()
    return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - $1::pg_lsn", before))


@asynccontextmanager
async def open_lab(home: Path, *, orders: int, say: Callable[[str], None]) -> AsyncIterator[Lab]:
    """Start, migrate, seed; afterwards stop and wipe."""
    # Autovacuum would come at its own time: each experiment vacuums where that belongs to its question.
    settings = {"autovacuum": "off", "max_wal_size": "4GB", "checkpoint_timeout": "1h"}
    postgres = EmbeddedPostgres(home, free_base_port() + 100, settings=settings)
    try:
        postgres.start()
        os.environ |= {"DATABASE_URL": postgres.url, "APP_DB_SSL": "disable"}
        await asyncio.to_thread(upgrade)  # it has an event loop of its own
        db = Database(load_settings().db.model_copy(update={"pool_size": 1}), application="bench")
        await db.open()
        await seed_catalogue(db)
        await db.close()
        say(f"seeding {orders:,} orders")
        await seed_orders(postgres.url, orders)
        lab = Lab(home, postgres, orders, say)
        async with lab.connect() as connection:
            await connection.execute("VACUUM ANALYZE")
            await connection.execute("CHECKPOINT")
        yield lab
    finally:
        postgres.stop()
        postgres.wipe()
