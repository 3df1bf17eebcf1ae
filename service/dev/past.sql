-- What the service and its workers would have left behind for these orders, had they been placed and followed.
-- Status and version tell an order's whole way; `step` spells it. Statements are split at lines of three dashes.
-- $1 order ids $2 now
INSERT INTO order_timeline (order_id, version, type, at, detail)
SELECT o.id, s.version, 'order.' || s.type,
    CASE s.version WHEN 1 THEN o.created_at WHEN o.version THEN o.updated_at ELSE o.created_at + s.version * interval '1 second' END,
    CASE s.type WHEN 'rejected' THEN jsonb_build_object('reason', o.status_reason) ELSE '{}' END
FROM orders o JOIN seed_step s ON (s.status, s.last) = (o.status, o.version)
WHERE o.id = ANY ($1::uuid[]) AND $2::timestamptz IS NOT NULL
---
INSERT INTO stock_ledger (ref_id, sku, kind, quantity, at)
SELECT o.id, n.sku, s.kind, n.quantity, CASE s.version WHEN o.version THEN o.updated_at ELSE o.created_at + s.version * interval '1 second' END
FROM orders o JOIN seed_step s ON (s.status, s.last) = (o.status, o.version) JOIN order_line n ON n.order_id = o.id
WHERE o.id = ANY ($1::uuid[]) AND s.kind IS NOT NULL AND $2::timestamptz IS NOT NULL
---
INSERT INTO payment (id, order_id, kind, state, amount_minor, currency, idempotency_key, provider_ref, created_at, updated_at)
SELECT (left(o.id::text, 35) || to_hex(s.version + 8))::uuid, o.id, CASE s.money WHEN 'refunded' THEN 'refund' ELSE 'charge' END, s.money,
    o.total_minor, o.currency, CASE s.money WHEN 'refunded' THEN 'refund:' ELSE 'charge:' END || o.id, 'seed-' || o.id,
    o.created_at + s.version * interval '1 second', o.created_at + s.version * interval '1 second'
FROM orders o JOIN seed_step s ON (s.status, s.last) = (o.status, o.version)
WHERE o.id = ANY ($1::uuid[]) AND s.money IS NOT NULL AND $2::timestamptz IS NOT NULL
---
INSERT INTO idempotency_key (principal, key, fingerprint, status, headers, body, created_at, expires_at)
SELECT o.customer_id, 'seed-' || o.id, sha256(o.id::text::bytea), 201,
    jsonb_build_object('location', '/v1/orders/' || o.id, 'etag', '"1.1"', 'content-type', 'application/json'),
    convert_to(json_build_object('id', o.id, 'customer_id', o.customer_id, 'status', 'placed', 'version', 1, 'currency', o.currency,
        'total_minor', o.total_minor, 'lines', (SELECT json_agg(json_build_object('line_no', n.line_no, 'sku', n.sku, 'quantity', n.quantity,
            'unit_price_minor', n.unit_price_minor) ORDER BY n.line_no) FROM order_line n WHERE n.order_id = o.id))::text, 'UTF8'),
    o.created_at, o.created_at + interval '72 hours'
FROM orders o WHERE o.id = ANY ($1::uuid[]) AND o.created_at > $2::timestamptz - interval '72 hours'
---
-- The last event of an unfinished order is still to be sent: a running stack takes the order on from there.
WITH event AS (
    SELECT (left(o.id::text, 35) || s.version)::uuid AS event_id, t.at, o.id::text AS id, s.version, 'order.' || s.type AS type,
        o.status IN ('placed', 'reserved') AND s.version = o.version AS waits,
        convert_to((jsonb_build_object('order_id', o.id, 'customer_id', o.customer_id, 'total_minor', o.total_minor, 'currency', o.currency)
            || CASE s.type WHEN 'rejected' THEN jsonb_build_object('reason', o.status_reason) WHEN 'placed' THEN jsonb_build_object('lines',
                (SELECT jsonb_agg(jsonb_build_object('line_no', n.line_no, 'sku', n.sku, 'quantity', n.quantity,
                    'unit_price_minor', n.unit_price_minor) ORDER BY n.line_no) FROM order_line n WHERE n.order_id = o.id)) ELSE '{}' END
        )::text, 'UTF8') AS payload
    FROM orders o JOIN seed_step s ON (s.status, s.last) = (o.status, o.version)
    JOIN order_timeline t ON t.order_id = o.id AND t.version = s.version
    WHERE o.id = ANY ($1::uuid[]) AND o.created_at > $2::timestamptz - interval '7 days'
    ORDER BY t.at
), waiting AS (
    INSERT INTO outbox (event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers, created_at)
    SELECT event_id, 'order', id, version, type, 'orders.events.v1', id, payload, '{}', at FROM event WHERE waits ORDER BY at
)
INSERT INTO outbox_sent (seq, event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers, created_at, sent_at)
SELECT nextval(pg_get_serial_sequence('outbox', 'seq')), event_id, 'order', id, version, type, 'orders.events.v1', id, payload, '{}', at, at
FROM event WHERE NOT waits
---
INSERT INTO inbox (consumer, event_id, processed_at)
SELECT c.consumer, (left(o.id::text, 35) || s.version)::uuid, t.at
FROM orders o JOIN seed_step s ON (s.status, s.last) = (o.status, o.version)
JOIN order_timeline t ON t.order_id = o.id AND t.version = s.version
CROSS JOIN LATERAL unnest(s.consumers) AS c (consumer)
WHERE o.id = ANY ($1::uuid[]) AND o.created_at > $2::timestamptz - interval '45 days'
    AND NOT (o.status IN ('placed', 'reserved') AND s.version = o.version)
---
-- Last, and locked in the one order of everybody (docs/adr/0007): the rows everybody shares are held for milliseconds.
WITH held AS (
    SELECT l.sku, sum(CASE l.kind WHEN 'reserve' THEN l.quantity WHEN 'release' THEN -l.quantity ELSE 0 END) AS pieces
    FROM stock_ledger l WHERE l.ref_id = ANY ($1::uuid[]) AND $2::timestamptz IS NOT NULL GROUP BY l.sku
), locked AS MATERIALIZED (
    SELECT s.sku FROM stock s WHERE s.sku IN (SELECT sku FROM held) ORDER BY s.sku FOR NO KEY UPDATE
)
UPDATE stock s SET available = s.available - h.pieces FROM held h JOIN locked USING (sku) WHERE s.sku = h.sku
