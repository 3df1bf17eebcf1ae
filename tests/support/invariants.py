"""What must be true of a quiet system, asked of PostgreSQL, of the provider's own log and of the workers' lines.

Every function answers sentences, one a violation, none when the invariant holds (names as in docs/guarantees.md).
`held` runs them all; `unapplied` says what still has to happen before the system is quiet.
`tests/stories/test_a_broken_promise_is_noticed.py` plants one violation for each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import asyncpg
import orjson

from workers.main import GROUPS

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Entries = list[dict[str, Any]]

# Groups that keep an inbox row for what they handled; the others are commutative and need none.
_WITH_INBOX: Final = ("inventory", "payments", "notifications")
_EVENTS: Final = """
    SELECT seq, event_id, aggregate_type, aggregate_id, version, type FROM outbox
    UNION SELECT seq, event_id, aggregate_type, aggregate_id, version, type FROM outbox_sent
"""


async def one_order_a_key(connection: Connection) -> list[str]:
    """I2: orders and stored 201 answers are in one-to-one correspondence."""
    rows = await connection.fetch("""
        SELECT o.id, count(k.key) AS keys FROM orders o
        LEFT JOIN idempotency_key k ON k.status = 201 AND k.headers ->> 'location' = '/v1/orders/' || o.id
        GROUP BY o.id HAVING count(k.key) <> 1
    """)
    lost = await connection.fetch("""
        SELECT k.principal, k.key FROM idempotency_key k
        WHERE k.status = 201 AND NOT EXISTS (SELECT FROM orders o WHERE k.headers ->> 'location' = '/v1/orders/' || o.id)
    """)
    return [f"order {row['id']} belongs to {row['keys']} keys" for row in rows] + [
        f"{row['principal']}'s key {row['key']} answers with an order that is not there" for row in lost
    ]


async def stock_adds_up(connection: Connection) -> list[str]:
    """G1: pieces available = seeded + restocked − reserved + released, and what is reserved or shipped is what orders hold."""
    rows = await connection.fetch("""
        SELECT s.sku, s.available,
            sum(CASE l.kind WHEN 'seed' THEN l.quantity WHEN 'restock' THEN l.quantity WHEN 'release' THEN l.quantity
                            WHEN 'reserve' THEN -l.quantity ELSE 0 END) AS expected
        FROM stock s LEFT JOIN stock_ledger l USING (sku) GROUP BY s.sku, s.available
        HAVING s.available < 0 OR s.available IS DISTINCT FROM sum(CASE l.kind WHEN 'seed' THEN l.quantity WHEN 'restock' THEN l.quantity
            WHEN 'release' THEN l.quantity WHEN 'reserve' THEN -l.quantity ELSE 0 END)
    """)
    held = await connection.fetch("""
        WITH ledger AS (
            SELECT ref_id, sku, sum(quantity) FILTER (WHERE kind = 'reserve') AS reserved,
                sum(quantity) FILTER (WHERE kind IN ('release', 'ship')) AS settled
            FROM stock_ledger WHERE kind IN ('reserve', 'release', 'ship') GROUP BY ref_id, sku
        )
        SELECT o.id, o.status, n.sku, n.quantity, l.reserved, l.settled FROM orders o JOIN order_line n ON n.order_id = o.id
        LEFT JOIN ledger l ON l.ref_id = o.id AND l.sku = n.sku
        WHERE CASE
            WHEN o.status = 'placed' THEN l.reserved IS NOT NULL
            WHEN o.status IN ('reserved', 'paid') THEN l.reserved IS DISTINCT FROM n.quantity OR l.settled IS NOT NULL
            WHEN o.status = 'shipped' THEN l.reserved IS DISTINCT FROM n.quantity OR l.settled IS DISTINCT FROM n.quantity
            ELSE l.reserved IS DISTINCT FROM l.settled OR l.reserved <> n.quantity
        END
    """)
    return [f"{row['sku']} has {row['available']} pieces, its ledger says {row['expected']}" for row in rows] + [
        f"order {row['id']} is {row['status']}: of {row['quantity']} × {row['sku']} reserved {row['reserved']}, settled {row['settled']}"
        for row in held
    ]


async def nothing_is_oversold(connection: Connection) -> list[str]:
    """G2: pieces sold or held of a SKU never exceed what there was; an order turned away as sold out holds nothing."""
    rows = await connection.fetch("""
        SELECT sku, sum(quantity) FILTER (WHERE kind IN ('seed', 'restock')) AS supply,
            coalesce(sum(quantity) FILTER (WHERE kind = 'reserve'), 0) - coalesce(sum(quantity) FILTER (WHERE kind = 'release'), 0) AS taken
        FROM stock_ledger GROUP BY sku
    """)
    refused = await connection.fetch("""
        SELECT o.id FROM orders o WHERE o.status = 'rejected' AND o.status_reason = 'out_of_stock'
          AND EXISTS (SELECT FROM stock_ledger l WHERE l.ref_id = o.id)
    """)
    return [f"{row['sku']}: {row['taken']} of {row['supply']} pieces are taken" for row in rows if row["taken"] > (row["supply"] or 0)] + [
        f"order {row['id']} was refused as sold out and reserved pieces" for row in refused
    ]


async def versions_count_events(connection: Connection) -> list[str]:
    """G5, O1: a version is the number of the aggregate's events (products: without the seeded one)."""
    rows = await connection.fetch(f"""
        WITH event AS ({_EVENTS}), counted AS (SELECT aggregate_id, count(DISTINCT version) AS events FROM event GROUP BY aggregate_id)
        SELECT 'order ' || o.id AS what, o.version, coalesce(c.events, 0) AS events FROM orders o
        LEFT JOIN counted c ON c.aggregate_id = o.id::text WHERE o.version <> coalesce(c.events, 0)
        UNION ALL
        SELECT 'product ' || p.sku, p.version, coalesce(c.events, 0) + 1 FROM product p
        LEFT JOIN counted c ON c.aggregate_id = p.sku WHERE p.version <> coalesce(c.events, 0) + 1
    """)
    return [f"{row['what']} has version {row['version']} and events for {row['events']}" for row in rows]


async def events_are_in_order(connection: Connection) -> list[str]:
    """O2: the events of an aggregate are 1, 2, 3 … (products from 2) in the order they were written, each once."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in await connection.fetch(f"SELECT * FROM ({_EVENTS}) e ORDER BY seq"):
        found[row["aggregate_type"], row["aggregate_id"]].append(row["version"])
    return [
        f"{kind} {name} has events {versions[:20]}"
        for (kind, name), versions in found.items()
        if versions != list(range(first := 1 if kind == "order" else 2, first + len(versions)))
    ]


async def effects_happen_once(connection: Connection, provider: Entries) -> list[str]:
    """W2: no step was announced twice, no order charged or refunded twice, here or at the provider."""
    steps = await connection.fetch(f"""
        SELECT aggregate_id, type, count(*) AS times FROM ({_EVENTS}) e WHERE aggregate_type = 'order'
        GROUP BY aggregate_id, type HAVING count(*) > 1
    """)
    payments = await connection.fetch("SELECT order_id, kind, count(*) AS times FROM payment GROUP BY order_id, kind HAVING count(*) > 1")
    decided: dict[tuple[str, str], int] = defaultdict(int)
    for entry in provider:
        decided[entry["order_id"], entry["op"]] += 1
    return (
        [f"order {row['aggregate_id']} has {row['times']} × {row['type']}" for row in steps]
        + [f"order {row['order_id']} has {row['times']} {row['kind']} rows" for row in payments]
        + [f"order {order}: the provider decided {times} × {op}" for (order, op), times in decided.items() if times > 1]
    )


async def money_is_right(connection: Connection, provider: Entries) -> list[str]:
    """G6: captured − refunded is the total if paid or shipped, 0 otherwise; in our rows and at the provider."""
    theirs: dict[str, int] = defaultdict(int)
    for entry in provider:
        if entry["state"] in {"captured", "refunded"}:
            theirs[entry["order_id"]] += entry["amount_minor"] * (1 if entry["state"] == "captured" else -1)
    rows = await connection.fetch("""
        SELECT o.id, o.status, CASE WHEN o.status IN ('paid', 'shipped') THEN o.total_minor ELSE 0 END AS due,
            coalesce((SELECT sum(CASE p.state WHEN 'captured' THEN p.amount_minor WHEN 'refunded' THEN -p.amount_minor ELSE 0 END)
                      FROM payment p WHERE p.order_id = o.id), 0)::bigint AS ours
        FROM orders o
    """)
    known = {str(row["id"]) for row in rows}
    return [
        f"order {row['id']} is {row['status']}: due {row['due']}, our rows say {row['ours']}, the provider {theirs[str(row['id'])]}"
        for row in rows
        if not row["due"] == row["ours"] == theirs[str(row["id"])]
    ] + [f"the provider holds {amount} of order {order}, which is not there" for order, amount in theirs.items() if amount and order not in known]


async def every_order_has_ended(connection: Connection, *, parked: Iterable[str] = ()) -> list[str]:
    """Every order is paid, shipped, rejected, cancelled or expired; `parked` ones may wait for a person."""
    rows = await connection.fetch("SELECT id, status FROM orders WHERE status IN ('placed', 'reserved')")
    return [f"order {row['id']} is still {row['status']}" for row in rows if str(row["id"]) not in set(parked)]


async def unapplied(connection: Connection) -> list[str]:
    """W1: events still in the outbox, or neither applied nor parked by a group that handles them."""
    waiting = [f"{row['type']} of {row['aggregate_id']} is in the outbox" for row in await connection.fetch("SELECT type, aggregate_id FROM outbox")]
    for group in _WITH_INBOX:
        rows = await connection.fetch(
            """
            SELECT s.type, s.aggregate_id FROM outbox_sent s WHERE s.type = ANY ($2::text[])
              AND NOT EXISTS (SELECT FROM inbox i WHERE i.consumer = $1 AND i.event_id = s.event_id)
              AND NOT EXISTS (SELECT FROM dead_letter d WHERE d.consumer = $1 AND d.event_id = s.event_id)
            """,
            group, list(GROUPS[group]),
        )  # fmt: skip
        waiting += [f"{row['type']} of {row['aggregate_id']} waits for {group}" for row in rows]
    unseen = await connection.fetch("""
        SELECT s.type, s.aggregate_id FROM outbox_sent s WHERE s.aggregate_type = 'order'
          AND NOT EXISTS (SELECT FROM order_timeline t WHERE t.order_id::text = s.aggregate_id AND t.version = s.version)
    """)
    return waiting + [f"{row['type']} of {row['aggregate_id']} waits for timeline" for row in unseen]


def provider_log(home: Path) -> Entries:
    """What the provider decided, in order; a line cut off by a kill is no decision."""
    path = home / "psp.jsonl"
    return [orjson.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def retries_begun(home: Path) -> Entries:
    """One line for each retry a worker began: `record.due`, written before the handler is called. A kill may cut a line off."""
    lines = (line for path in sorted((home / "logs").glob("worker*.log")) for line in path.read_bytes().split(b"\n") if b'"record.due"' in line)
    return [orjson.loads(line) for line in lines if line.endswith(b"}")]


async def nothing_begins_early(retries: Entries) -> list[str]:
    """W3: no retry began before the moment its record's header names."""
    return [
        f"{line['group']} began a retry of {line['aggregate']} in tier {line['tier']} {early_s * 1000:.1f} ms early"
        for line in retries
        if (early_s := line["due_ms"] / 1000 - datetime.fromisoformat(line["timestamp"]).timestamp()) > 0
    ]


async def held(connection: Connection, provider: Entries, retries: Entries, *, parked: Iterable[str] = ()) -> dict[str, list[str]]:
    """Invariant → its violations, for those that do not hold: empty when all is well. Ask when the system is quiet."""
    checks: Mapping[str, Callable[[], Awaitable[list[str]]]] = {
        "I2": lambda: one_order_a_key(connection),
        "G1": lambda: stock_adds_up(connection),
        "G2": lambda: nothing_is_oversold(connection),
        "G5": lambda: versions_count_events(connection),
        "O2": lambda: events_are_in_order(connection),
        "W1": lambda: unapplied(connection),
        "W2": lambda: effects_happen_once(connection, provider),
        "W3": lambda: nothing_begins_early(retries),
        "G6": lambda: money_is_right(connection, provider),
        "ended": lambda: every_order_has_ended(connection, parked=parked),
    }
    return {name: found for name, check in checks.items() if (found := await check())}
