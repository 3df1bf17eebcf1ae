"""A database of its own with many orders, for questions about cost: which plans, how many buffers, how many statements."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import asyncpg
import httpx
import pytest

import service.app
import service.foundation.db
from service.dev.issuer import create_issuer
from service.migrations import upgrade
from service.settings import Settings, load_settings
from service.web.jwks import KeySet
from tests.support.servers import Servers

REGULAR = "regular"
# The regular customer owns every fourth order; ids rise with time, as UUIDv7 does.
_NOISE = ("max(outbox.seq)", "pg_catalog.pg_type", "current_setting('jit')", "FROM alembic_version")
# Whoever refers comes before what it refers to. Without the log the shop is there in two thirds of the time, and plans are the same.
_UNLOGGED = (
    "order_line",
    "order_timeline",
    "payment",
    "orders",
    "stock_ledger",
    "stock",
    "product",
    "idempotency_key",
    "inbox",
    "outbox",
    "dead_letter",
)
_FILL = """
SET session_replication_role = replica; -- no foreign key checks: everything refers to what is made beside it
INSERT INTO product (sku, name, price_minor, currency)
    SELECT 'SKU-' || lpad(n::text, 4, '0'), 'Product ' || n, 1000 + n, 'EUR' FROM generate_series(1, 5000) n;
INSERT INTO stock (sku, available) SELECT sku, 1000000 FROM product;
INSERT INTO orders (id, customer_id, status, version, currency, total_minor, created_at, updated_at, closed_at)
    SELECT ('01890a5d-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
           CASE WHEN n % 4 = 0 THEN 'regular' ELSE 'customer-' || n % 10007 END,
           CASE WHEN n > {orders} - 100 THEN 'placed' WHEN n % 10 = 0 THEN 'cancelled' ELSE 'shipped' END,
           4, 'EUR', 1000, now() - interval '1 day', now() - interval '1 day', CASE WHEN n <= {orders} - 100 THEN now() END
    FROM generate_series(1, {orders}) n;
INSERT INTO order_line (order_id, line_no, sku, quantity, unit_price_minor)
    SELECT id, 1, 'SKU-' || lpad((1 + row_number() OVER () % 5000)::text, 4, '0'), 1, 1000 FROM orders;
INSERT INTO idempotency_key (principal, key, fingerprint, status, headers, body, expires_at)
    SELECT customer_id, id::text, '\\x00', 201, '{{}}', '\\x00', now() + interval '3 days' FROM orders;
INSERT INTO inbox (consumer, event_id) SELECT 'inventory', id FROM orders;
INSERT INTO stock_ledger (ref_id, sku, kind, quantity) SELECT order_id, sku, 'reserve', 1 FROM order_line;
INSERT INTO payment (id, order_id, kind, state, amount_minor, currency, idempotency_key)
    SELECT id, id, 'charge', 'captured', 1000, 'EUR', 'charge:' || id FROM orders;
INSERT INTO order_timeline (order_id, version, type, at, detail) SELECT id, v, 'order.placed', now(), '{{}}' FROM orders, generate_series(1, 2) v;
INSERT INTO outbox (event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers)
    SELECT id, 'order', id::text, 5, 'order.paid', 'orders.events.v1', id::text, '\\x00', '{{}}' FROM orders LIMIT {orders} / 5;
INSERT INTO dead_letter (id, consumer, topic, partition, "offset", headers, error_class, error_message, attempts, status)
    SELECT id, 'payments', 'orders.events.v1', 0, row_number() OVER (), '{{}}', 'X', 'x', 1, 'discarded' FROM orders LIMIT {orders} / 5;
SET session_replication_role = origin;
"""


@dataclass
class Recorder:
    """Every statement that went to the database, in order."""

    statements: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    def note(self, query: Any) -> None:
        self.statements.append((query.query, tuple(query.args or ())))

    async def take(self) -> list[tuple[str, tuple[Any, ...]]]:
        """What was said since the last time, without the app's own sampling and the driver's look at types."""
        await asyncio.sleep(0)  # the driver tells its listeners in the loop's next turn
        taken, self.statements = self.statements, []
        return [said for said in taken if not any(noise in said[0] for noise in _NOISE)]


@contextlib.contextmanager
def settings_of_its_own(servers: Servers, database: str) -> Iterator[Settings]:
    """Another database in the same server, migrated; the environment is put back."""
    servers.postgres.run("psql", "-Xqc", f"CREATE DATABASE {database}")
    patch = pytest.MonkeyPatch()
    patch.setenv("DATABASE_URL", re.sub(r"/plumbline$", f"/{database}", servers.postgres.url))
    patch.setenv("REDIS_URL", servers.redis.url.replace("/0", "/5"))
    patch.setenv("APP_PROFILE", "load")
    upgrade()
    made = load_settings()
    patch.undo()
    patient = made.db.model_copy(update={"command_timeout_ms": 60_000, "statement_timeout_ms": 60_000})
    yield made.model_copy(update={"db": patient})  # the question is which pages are read, not how soon on a busy machine
    # What is thrown away here need not be written to the disk when the server stops.
    servers.postgres.run("psql", "-Xqc", f"DROP DATABASE {database} WITH (FORCE)")


@contextlib.asynccontextmanager
async def filled(settings: Settings, orders: int) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """So many orders and what belongs to them are there and analysed; a plain connection with the service's planner settings."""
    connection = await asyncpg.connect(settings.db.url.get_secret_value(), server_settings={"random_page_cost": "1.1", "jit": "off"})
    for table in _UNLOGGED:
        await connection.execute(f"ALTER TABLE {table} SET UNLOGGED")
    await connection.execute(_FILL.format(orders=orders))
    for statement in ("VACUUM ANALYZE", "SET plan_cache_mode = force_generic_plan"):
        await connection.execute(statement)
    yield connection
    await connection.close()


@contextlib.asynccontextmanager
async def recording_api(settings: Settings, recorder: Recorder) -> AsyncIterator[httpx.AsyncClient]:
    """The API on these settings, every statement of its pool recorded."""
    issuer = httpx.AsyncClient(transport=httpx.ASGITransport(create_issuer(settings)))
    patch = pytest.MonkeyPatch()
    patch.setattr(service.app, "KeySet", partial(KeySet, client=issuer))
    with recorded_connections(recorder):
        # A busy machine is no outage: 50 ms would make a hit a read of PostgreSQL.
        app = service.app.create_app(settings.model_copy(update={"redis": settings.redis.model_copy(update={"timeout_ms": 5000})}))
        async with app.router.lifespan_context(app):
            await app.state.resources.keys.load()
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
                yield client
    patch.undo()


@contextlib.contextmanager
def recorded_connections(recorder: Recorder) -> Iterator[None]:
    """Connections opened inside tell the recorder what they run."""
    patch = pytest.MonkeyPatch()
    original = service.foundation.db._set_codecs

    async def listen(connection: asyncpg.Connection[asyncpg.Record]) -> None:
        await original(connection)
        connection.add_query_logger(recorder.note)

    patch.setattr(service.foundation.db, "_set_codecs", listen)
    yield
    patch.undo()
