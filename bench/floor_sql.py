"""The floors' SQL: the same work as the service's, in one statement each, owned by the benchmark.

Copied on purpose: a floor that moved with the code under test would hide what the code costs.
"""

from __future__ import annotations

from typing import Final

_LINES: Final = """
(SELECT json_agg(json_build_object('line_no', l.line_no, 'sku', l.sku, 'quantity', l.quantity, 'unit_price_minor', l.unit_price_minor)
                 ORDER BY l.line_no) FROM order_line l WHERE l.order_id = o.id) AS lines
"""

READ_ORDER: Final = "SELECT o.*, " + _LINES + " FROM orders o WHERE o.id = $1"
LIST_ORDERS: Final = "SELECT o.*, " + _LINES + " FROM orders o WHERE o.customer_id = $1 ORDER BY o.id DESC LIMIT $2"

# Claim, price check, order, lines, outbox. `{…}`: the parameters, as $n for asyncpg and as expressions for pgbench.
_PLACE: Final = """
WITH {given}line AS MATERIALIZED (
    SELECT l.line_no::int, l.sku, l.quantity, l.unit_price_minor
    FROM unnest({skus}::text[], {quantities}::int[], {prices}::bigint[]) WITH ORDINALITY AS l (sku, quantity, unit_price_minor, line_no)
), stale AS MATERIALIZED (
    SELECT l.line_no FROM line l
    LEFT JOIN LATERAL (SELECT p.price_minor, p.currency, p.active FROM product p WHERE p.sku = l.sku LIMIT 1) c ON true
    WHERE (c.active AND c.price_minor = l.unit_price_minor AND c.currency = 'EUR') IS NOT TRUE
), claim AS (
    INSERT INTO idempotency_key (principal, key, fingerprint, status, headers, body, expires_at)
    SELECT {principal}::text, {key}::text, {fingerprint}::bytea, 201, '{{}}', {body}::bytea, now() + interval '72 hours'
    WHERE NOT EXISTS (SELECT FROM stale)
    ON CONFLICT (principal, key) DO NOTHING RETURNING 1
), new_order AS (
    INSERT INTO orders (id, customer_id, status, version, currency, total_minor, created_at, updated_at)
    SELECT {order_id}, {principal}::text, 'placed', 1, 'EUR', {total}::bigint, now(), now() FROM claim
), new_line AS (
    INSERT INTO order_line (order_id, line_no, sku, quantity, unit_price_minor)
    SELECT {order_id}, l.line_no, l.sku, l.quantity, l.unit_price_minor FROM claim, line l
), new_event AS (
    INSERT INTO outbox (event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers)
    SELECT {event_id}, 'order', {order_id}::text, 1, 'order.placed', 'orders.events.v1', {order_id}::text, {payload}::bytea, '{{}}'
    FROM claim
)
SELECT CASE WHEN EXISTS (SELECT FROM claim) THEN 'created' ELSE 'no' END
"""

PLACE_ORDER: Final = _PLACE.format(
    given="", principal="$1", key="$2", fingerprint="$3", body="$4", order_id="$5::uuid", total="$6",
    skus="$7", quantities="$8", prices="$9", event_id="$10::uuid", payload="$11",
)  # fmt: skip

# The same for pgbench: what Python would send as values, PostgreSQL makes itself; the work on tables is equal.
_SCRIPT_PARTS: Final = {
    "given": "id AS MATERIALIZED (SELECT uuidv7() AS o, uuidv7() AS e), ",
    "principal": "'pgbench'",
    "key": "(SELECT o::text FROM id)",
    "fingerprint": "sha256('pgbench')",
    "body": "convert_to(repeat('x', 420), 'UTF8')",
    "order_id": "(SELECT o FROM id)",
    "event_id": "(SELECT e FROM id)",
    "payload": "convert_to('{{' || repeat('x', 300) || '}}', 'UTF8')",
}


def pgbench_script(skus: list[str], quantities: list[int], prices: list[int]) -> str:
    """A pgbench script placing one order with these lines."""
    total = sum(q * p for q, p in zip(quantities, prices, strict=True))
    lists = {name: f"'{{{','.join(map(str, values))}}}'" for name, values in (("skus", skus), ("quantities", quantities), ("prices", prices))}
    return _PLACE.format(**_SCRIPT_PARTS, total=str(total), **lists).strip() + ";\n"
