"""What row-level security would cost: the same statements with and without a policy, side by side on one connection each.

`python -m bench.row_security` prints CPU microseconds of the backend and of the client for one operation, and the
statements it takes; medians of interleaved rounds. The numbers of docs/adr/0031 come from here.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg

from bench.cpu import cpu_ns
from bench.servers import free_base_port
from service.dev.postgres import EmbeddedPostgres
from service.migrations import upgrade

_ROUNDS: Final = 8
_OPERATIONS: Final = 400
_ORDERS: Final = 20_000
_CUSTOMERS: Final = 200
_FILL: Final = """
INSERT INTO orders (id, customer_id, status, version, currency, total_minor)
SELECT gen_random_uuid(), 'c' || n % $1, 'placed', 1, 'EUR', n FROM generate_series(1, $2) AS n
"""
_POLICY: Final = """
CREATE ROLE app NOLOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
CREATE TABLE orders_rls (LIKE orders INCLUDING ALL);
INSERT INTO orders_rls SELECT * FROM orders;
ALTER TABLE orders_rls ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON orders_rls USING (customer_id = current_setting('app.customer', true));
GRANT ALL ON orders_rls TO app; ANALYZE;
"""
_GET: Final = "SELECT * FROM {} WHERE id = $1"
_LIST: Final = "SELECT * FROM {} WHERE customer_id = $1 ORDER BY id DESC LIMIT 20"
_PUT: Final = "INSERT INTO {} (id, customer_id, status, version, currency, total_minor) VALUES ($1, $2, 'placed', 1, 'EUR', 1)"
_SCOPE: Final = "SELECT set_config('app.customer', $1, true)"

Arm = Callable[[], Awaitable[object]]


class Side:
    """One connection; `table` has the policy or not."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], table: str, order: object) -> None:
        self.connection, self.table, self.order = connection, table, order

    async def plainly(self, sql: str, *values: object) -> object:
        """One statement, one round trip."""
        return await self.connection.fetch(sql.format(self.table), *values)

    async def scoped(self, sql: str, *values: object) -> object:
        """BEGIN, who it is for, the statement, COMMIT: what a pool shared by many customers needs."""
        async with self.connection.transaction():
            await self.connection.fetchval(_SCOPE, "c1")
            return await self.connection.fetch(sql.format(self.table), *values)

    async def cost_us(self, arm: Arm) -> tuple[float, float]:
        """CPU microseconds of (backend, this process) for one operation."""
        backend = self.connection.get_server_pid()
        before, begun = cpu_ns([backend]), time.process_time()
        for _ in range(_OPERATIONS):
            await arm()
        return (cpu_ns([backend]) - before) / _OPERATIONS / 1e3, (time.process_time() - begun) / _OPERATIONS * 1e6


async def compare(title: str, plain: tuple[Side, Arm], secured: tuple[Side, Arm]) -> None:
    """Print both medians and the ratios round by round."""
    rounds = [(await plain[0].cost_us(plain[1]), await secured[0].cost_us(secured[1])) for _ in range(_ROUNDS + 1)][1:]
    parts = []
    for number, who in enumerate(("PostgreSQL", "client")):
        a, b = (statistics.median(pair[side][number] for pair in rounds) for side in (0, 1))
        ratio = statistics.median(pair[1][number] / pair[0][number] for pair in rounds)
        parts.append(f"{who} {a:.0f} → {b:.0f} µs (× {ratio:.2f})")
    print(f"{title}: {', '.join(parts)}", flush=True)


async def compare_all(title: str, sql: str, plain: Side, secured: Side, *, values: Callable[[], tuple[object, ...]]) -> None:
    """The policy alone, with a customer set once; then with what sets the customer for each transaction."""
    bare: tuple[Side, Arm] = (plain, lambda: plain.plainly(sql, *values()))
    await compare(f"{title}, the policy alone", bare, (secured, lambda: secured.plainly(sql, *values())))
    await compare(f"{title}, set per transaction", bare, (secured, lambda: secured.scoped(sql, *values())))


async def measure(url: str) -> None:
    """Fill, then compare: the policy alone, then with what sets its customer."""
    plain_connection, secured_connection = await asyncpg.connect(url), await asyncpg.connect(url)
    await plain_connection.execute(_FILL, _CUSTOMERS, _ORDERS)
    await plain_connection.execute(_POLICY)
    for connection in (plain_connection, secured_connection):
        await connection.execute("SET ROLE app; SELECT set_config('app.customer', 'c1', false)")
    order = await plain_connection.fetchval("SELECT id FROM orders WHERE customer_id = 'c1' LIMIT 1")
    plain, secured = Side(plain_connection, "orders", order), Side(secured_connection, "orders_rls", order)
    await compare_all("read one", _GET, plain, secured, values=lambda: (order,))
    await compare_all("list 20", _LIST, plain, secured, values=lambda: ("c1",))
    await compare_all("insert one", _PUT, plain, secured, values=lambda: (uuid4(), "c1"))
    await plain_connection.close()
    await secured_connection.close()


def main() -> None:
    """Start PostgreSQL, compare, stop it."""
    with tempfile.TemporaryDirectory(prefix="plumbline-bench-") as folder:
        postgres = EmbeddedPostgres(Path(folder), free_base_port() + 100)
        try:
            print("starting PostgreSQL and filling it (about ten seconds)", flush=True)
            postgres.start()
            os.environ["DATABASE_URL"] = postgres.url
            upgrade()
            asyncio.run(measure(postgres.url))
        finally:
            postgres.stop()
            postgres.wipe()


if __name__ == "__main__":
    main()
