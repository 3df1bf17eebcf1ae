"""A shop with a past: `plumbline seed --orders N` fills the tables with a year of orders, skewed like life.

Few customers buy most and few products sell most; the shop grew, so most orders are recent. Orders and lines arrive
by COPY, what the workers would have left behind is derived from them in the same transaction (`past.sql`), so the
invariants of docs/guarantees.md hold after every batch and an interrupted run goes on where it was.
Test: tests/integration/test_seed_orders.py.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg

_LANES: Final = 3  # the client prepares a batch while the server works on two others
_BATCH: Final = 5_000
_PAST_S: Final = 365 * 86_400.0
_GROWTH: Final = 1.5  # age = past × (1 − rank)^growth
_FRESH_S, _RECENT_S = 30 * 60.0, 2 * 86_400.0
_ORDER: Final = (
    "id", "customer_id", "status", "status_reason", "version", "currency", "total_minor", "note", "created_at", "updated_at", "closed_at"
)  # fmt: skip
_LINE: Final = ("order_id", "line_no", "sku", "quantity", "unit_price_minor")
# How an order ended: status, reason, version; so many of a hundred. Status and version tell the whole way.
_FINAL: Final = (
    *[("shipped", None, 4)] * 86, *[("cancelled", None, 5)] * 3, *[("cancelled", None, 2)] * 3, *[("rejected", "out_of_stock", 2)] * 2,
    *[("rejected", "payment_declined", 3)] * 3, ("expired", "not finished in time", 2), *[("paid", None, 3)] * 2,
)  # fmt: skip
_RECENT_ONES: Final = (*[("paid", None, 3)] * 60, *_FINAL)
_FRESH_ONES: Final = (*[("placed", None, 1)] * 5, *[("reserved", None, 2)] * 2, *[("paid", None, 3)] * 3)
_SOLD_OUT: Final = "SKU-0002"  # 100 pieces: an order for 101 is rejected
# Large and small in turn: each lane analyses every second one.
_TABLES: Final = ("orders", "order_line", "order_timeline", "stock_ledger", "inbox", "outbox_sent", "payment", "idempotency_key", "stock", "outbox")
_NOTES: Final = (None,) * 9 + ("please ring twice",)
_LEFT_BEHIND: Final = "SELECT EXISTS (SELECT FROM outbox_sent_default WHERE sent_at >= $1::date AND sent_at < $1::date + 1)"
# Way (status, last version), then each step: version, type, move of stock, payment state, consumers that applied it.
_STEPS: Final = """
CREATE TEMP TABLE seed_step AS
WITH kind (type, kind, money, consumers) AS (VALUES
    ('placed', NULL, NULL, '{inventory}'::text[]), ('reserved', 'reserve', NULL, '{payments}'), ('paid', NULL, 'captured', '{notifications}'),
    ('shipped', 'ship', NULL, '{inventory,notifications}'), ('refunded', NULL, 'refunded', '{notifications}'),
    ('expired', NULL, NULL, '{inventory,payments,notifications}'), ('cancelled', NULL, NULL, '{inventory,payments,notifications}'),
    ('rejected', NULL, NULL, '{inventory,notifications}')
), way (status, types) AS (VALUES
    ('placed', '{placed}'::text[]), ('reserved', '{placed,reserved}'), ('paid', '{placed,reserved,paid}'),
    ('shipped', '{placed,reserved,paid,shipped}'), ('cancelled', '{placed,cancelled}'), ('expired', '{placed,expired}'),
    ('cancelled', '{placed,reserved,paid,cancelled,refunded}'), ('rejected', '{placed,rejected}'), ('rejected', '{placed,reserved,rejected}')
)
SELECT w.status, cardinality(w.types) AS last, t.version::int, t.type, k.consumers,
    CASE WHEN t.type IN ('cancelled', 'rejected') AND 'reserved' = ANY (w.types) THEN 'release' ELSE k.kind END AS kind,
    CASE WHEN t.type = 'rejected' AND 'reserved' = ANY (w.types) THEN 'declined' ELSE k.money END AS money
FROM way w CROSS JOIN LATERAL unnest(w.types) WITH ORDINALITY AS t (type, version) JOIN kind k USING (type)
"""


@dataclass(slots=True)
class Plan:
    """What is still to be made, in order of time."""

    wanted: int
    present: int
    now: datetime
    prices: dict[str, int]
    made: int = 0
    random: random.Random = field(init=False)
    customers: int = field(init=False)
    skus: list[str] = field(init=False)  # best sellers first

    def __post_init__(self) -> None:
        self.random = random.Random(self.present)
        self.customers = max(50, self.wanted // 20)
        self.skus = [f"SKU-{number:04d}" for number in range(1, len(self.prices) + 1)]

    def batches(self) -> Iterator[tuple[list[Any], list[Any]]]:
        """(orders, lines) as records for COPY; ids rise with time."""
        missing = self.wanted - self.present
        for start in range(0, missing, _BATCH):
            orders: list[Any] = []
            lines: list[Any] = []
            for number in range(start, min(start + _BATCH, missing)):
                self._add(orders, lines, 1 - (number + 0.5) / missing)
            yield orders, lines

    def _add(self, orders: list[Any], lines: list[Any], rank: float) -> None:
        draw = self.random.random
        age_s = _PAST_S * rank**_GROWTH
        placed_s = self.now.timestamp() - age_s
        # UUIDv7: milliseconds, then random bits; the last digit is left free for what is derived from it.
        bits = self.random.getrandbits(74)
        order_id = UUID(int=int(placed_s * 1000) << 80 | 7 << 76 | (bits >> 62) << 64 | 2 << 62 | (bits & ((1 << 62) - 1)) & ~0xF)
        ways = _FRESH_ONES if age_s < _FRESH_S else _RECENT_ONES if age_s < _RECENT_S else _FINAL
        status, reason, version = ways[int(len(ways) * draw())]
        total = 0
        for line_no, (sku, quantity) in enumerate(self._basket(reason).items(), start=1):
            lines.append((order_id, line_no, sku, quantity, self.prices[sku]))
            total += quantity * self.prices[sku]
        customer = f"customer-{1 + int(self.customers * draw() ** 3)}"
        took_s = 72 * 3_600 * draw() if status in {"shipped", "cancelled"} else 8
        placed_at = datetime.fromtimestamp(placed_s, UTC)
        finished = placed_at if version == 1 else datetime.fromtimestamp(placed_s + max(min(took_s, age_s * 0.9), version / 1000), UTC)
        closed = None if status in {"placed", "reserved"} else finished
        note = _NOTES[int(10 * draw())]
        orders.append((order_id, customer, status, reason, version, "EUR", total, note, placed_at, finished, closed))

    def _basket(self, reason: str | None) -> dict[str, int]:
        if reason == "out_of_stock":
            return {_SOLD_OUT: 101}
        draw, skus, basket = self.random.random, self.skus, {}
        for _ in range(1 + int(10 * draw() ** 10)):
            sku = skus[int(len(skus) * draw() ** 2.5)]
            basket["SKU-0003" if sku == _SOLD_OUT else sku] = 1 + int(5 * draw() ** 4)
        return basket


async def seed_orders(url: str, wanted: int) -> int:
    """Bring the shop to `wanted` orders, then ANALYZE; answers the number of orders there now. Needs the catalogue."""
    statements = [part.strip() for part in Path(__file__).with_name("past.sql").read_text().split("\n---\n")]
    lanes = [await _open_lane(url) for _ in range(_LANES)]
    try:
        present = await lanes[0].fetchval("SELECT count(*) FROM orders")
        plan = Plan(wanted, present, datetime.now(UTC), {row[0]: row[1] for row in await lanes[0].fetch("SELECT sku, price_minor FROM product")})
        await _make_partitions(lanes[0], plan.now)
        batches = plan.batches()
        progress = asyncio.create_task(_report(plan, time.monotonic()))
        try:
            await asyncio.gather(*(_fill(lane, plan, batches, statements) for lane in lanes))
        finally:
            progress.cancel()
        await asyncio.gather(*(lane.execute(f"ANALYZE {', '.join(_TABLES[number::_LANES])}") for number, lane in enumerate(lanes)))
        return int(await lanes[0].fetchval("SELECT count(*) FROM orders"))
    finally:
        for lane in lanes:
            await lane.close()


async def _open_lane(url: str) -> asyncpg.Connection[asyncpg.Record]:
    # A seed that a crash cuts short is repeated: it need not wait for the disk after each batch.
    settings = {
        "synchronous_commit": "off",
        "plan_cache_mode": "force_custom_plan",
        "random_page_cost": "1.1",
        "jit": "off",
        "application_name": "plumbline-seed",
    }
    lane = await asyncpg.connect(url, server_settings=settings)
    await lane.execute(_STEPS)
    if await lane.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        # Every reference is made beside what it refers to: without its foreign key checks the seed takes two thirds of the time.
        await lane.execute("SET session_replication_role = replica")
    return lane


async def _make_partitions(lane: asyncpg.Connection[asyncpg.Record], now: datetime) -> None:
    """Days of the past that outbox_sent has no partition for; rows already in the default partition keep their day there."""
    for back in range(8):
        day = (now - timedelta(days=back)).date()
        bounds = f"FROM ('{day}') TO ('{day + timedelta(days=1)}')"
        if not await lane.fetchval(_LEFT_BEHIND, day):
            await lane.execute(f"CREATE TABLE IF NOT EXISTS outbox_sent_{day:%Y%m%d} PARTITION OF outbox_sent FOR VALUES {bounds}")


async def _fill(lane: asyncpg.Connection[asyncpg.Record], plan: Plan, batches: Iterator[tuple[list[Any], list[Any]]], statements: list[str]) -> None:
    for orders, lines in batches:
        async with lane.transaction():
            await lane.copy_records_to_table("orders", records=orders, columns=_ORDER)
            await lane.copy_records_to_table("order_line", records=lines, columns=_LINE)
            for statement in statements:
                await lane.execute(statement, [row[0] for row in orders], plan.now)
        plan.made += len(orders)


async def _report(plan: Plan, begin: float) -> None:
    """One line every two seconds; on a terminal it is always the same line."""
    missing, same_line = plan.wanted - plan.present, sys.stdout.isatty()
    while plan.made < missing:
        await asyncio.sleep(2)
        took = time.monotonic() - begin
        left = f", about {took / plan.made * (missing - plan.made):.0f} s left" if plan.made else ""
        line = f"  {plan.present + plan.made:>9,} of {plan.wanted:,} orders, {plan.made / took:,.0f} a second{left}"
        print(f"\r{line:<79}" if same_line else line, end="" if same_line and plan.made < missing else "\n", flush=True)
