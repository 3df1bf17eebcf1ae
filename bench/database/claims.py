"""The plans the service depends on, as data: which statement, which index, and how many buffers at most, at any size of the tables.

docs/database.md lists them. tests/integration/test_query_plans.py holds them at 100,000 orders at every push,
tests/integration/test_plans_at_a_million.py at 1,000,000 in the slow lane. The statements are the service's own objects, not copies.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from bench.database.plans import explain_generic
from service.foundation.db import Connection
from service.orders.operations import _GET, _TIMELINE, _list_statement
from workers.reaper import _CANDIDATES, _OLD_INBOX, _OLD_KEYS
from workers.relay import _READ

_OWN: Final = _list_statement(by_customer=True, by_status=False, before=True)
_ALL: Final = _list_statement(by_customer=False, by_status=False, before=True)
# `payments` finds a charge by its order in several statements; this is what they share.
_PAYMENT: Final = "SELECT id, state FROM payment WHERE order_id = $1"
# Longer ago than anything: what a reaper finds in nearly every turn is nothing.
_EVER: Final = timedelta(days=4_000)
_EXPIRED: Final = """
UPDATE idempotency_key SET expires_at = now() - interval '1 second' WHERE ctid = ANY (ARRAY(SELECT ctid FROM idempotency_key LIMIT 2000))
"""


@dataclass(frozen=True, slots=True)
class Picked:
    """Values to ask with, in the middle of what is there."""

    order: Any
    customer: str
    seq: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What `ask` runs, after `given`, uses `index`, reads no large table whole, and touches at most `buffers` pages."""

    name: str
    where: str
    ask: Callable[[Picked], tuple[Any, ...]]
    index: str
    buffers: int
    given: str = ""


CLAIMS: Final = (
    Claim("one order with its lines", "service/orders/operations.py", lambda at: _GET(id=at.order), "pk_orders", 20),
    Claim(
        "a page in the middle of the biggest customer's list", "service/orders/operations.py",
        lambda at: _OWN(customer_id=at.customer, before=at.order, limit=20), "ix_orders_customer_id_id", 250,
    ),
    Claim(
        "a page in the middle of all orders", "service/orders/operations.py", lambda at: _ALL(before=at.order, limit=20), "pk_orders", 250,
    ),
    Claim("the history of an order", "service/orders/operations.py", lambda at: _TIMELINE(id=at.order), "pk_order_timeline", 20),
    Claim("the payments of an order", "workers/handlers/payments.py", lambda at: (_PAYMENT, at.order), "ix_payment_order_id", 12),
    Claim("what to publish next", "workers/relay.py", lambda at: (_READ, at.seq, [], 500), "pk_outbox", 700),
    Claim("orders overdue", "workers/reaper.py", lambda at: (_CANDIDATES, _EVER, timedelta(minutes=15), 100), "ix_orders_open", 40),
    Claim("a thousand keys past their time", "workers/reaper.py", lambda at: (_OLD_KEYS, 1_000), "ix_idempotency_key_expires_at", 6_000, _EXPIRED),
    Claim("a thousand inbox rows past their time", "workers/reaper.py", lambda at: (_OLD_INBOX, 1_000, timedelta()), "ix_inbox_processed_at", 6_000),
)  # fmt: skip


async def pick(connection: Connection) -> Picked:
    """An order in the middle, the customer with the most, and where the outbox begins."""
    order = await connection.fetchval("SELECT id FROM orders ORDER BY id OFFSET (SELECT count(*) / 2 FROM orders) LIMIT 1")
    customer = await connection.fetchval("SELECT customer_id FROM orders GROUP BY 1 ORDER BY count(*) DESC LIMIT 1")
    return Picked(order, customer, await connection.fetchval("SELECT coalesce(min(seq), 0) FROM outbox"))


async def complaints(connection: Connection, claim: Claim, at: Picked, *, planted: str = "") -> list[str]:
    """What is wrong with the claim now; nothing is changed. `planted`: run first, in the same rolled-back transaction."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        for first in filter(None, (claim.given, planted)):
            await connection.execute(first)
        sql, *values = claim.ask(at)
        plan = json.loads("".join(await explain_generic(connection, "ANALYZE, BUFFERS, FORMAT JSON", sql, values)))[0]["Plan"]
    finally:
        await transaction.rollback()
    return _judge(claim, plan)


def _judge(claim: Claim, plan: dict[str, Any]) -> list[str]:
    nodes, waiting = [], [plan]
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        waiting += node.get("Plans", [])
    found = []
    if claim.index not in {node.get("Index Name") for node in nodes}:
        found.append(f"{claim.name}: {claim.index} is not used")
    whole = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan" and node["Actual Loops"]}
    found += [f"{claim.name}: reads all of {table}" for table in sorted(whole)]
    touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    if touched > claim.buffers:
        found.append(f"{claim.name}: touches {touched} buffers, {claim.buffers} were promised")
    return found


def listed() -> str:
    """The claims as the page's last section."""
    rows = "\n".join(f"| {claim.name} | `{claim.where}` | `{claim.index}` | {claim.buffers:,} |" for claim in CLAIMS)
    return f"| what is asked | statement in | index | buffers at most |\n|---|---|---|---|\n{rows}\n"
