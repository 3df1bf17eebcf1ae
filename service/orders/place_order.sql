-- Place an order: gate, claim, write, answer. One statement, autocommit, one round trip (docs/adr/0005).
--
-- Outcomes: created | seen (an answer is stored: replay it, or 422 by fingerprint)
--         | stale (the catalogue no longer backs some lines; nothing was written)
--         | twin (an unseen twin committed while we waited for it: run again, then it is seen).
-- "Nothing written" is gating, not undoing: a DELETE in the same statement cannot see the row it should delete.
WITH line AS MATERIALIZED (      -- what the process believes
    SELECT l.line_no::int, l.sku, l.quantity, l.unit_price_minor
    FROM unnest($13::text[], $14::int[], $15::bigint[]) WITH ORDINALITY AS l (sku, quantity, unit_price_minor, line_no)
), stale AS MATERIALIZED (       -- lines the catalogue no longer backs; empty when all is well
    SELECT l.line_no
    FROM line l
    LEFT JOIN LATERAL (SELECT p.sku, p.price_minor, p.currency, p.active FROM product p WHERE p.sku = l.sku LIMIT 1) c ON true
    WHERE (c.active AND c.price_minor = l.unit_price_minor AND c.currency = $9::text) IS NOT TRUE
), seen AS MATERIALIZED (        -- the key, if this snapshot can see it
    SELECT k.fingerprint, k.status, k.headers, k.body
    FROM idempotency_key k WHERE k.principal = $1::text AND k.key = $2::text
), claim AS (                    -- the unique index is the lock: a twin waits here, then writes nothing
    INSERT INTO idempotency_key (principal, key, fingerprint, status, headers, body, expires_at)
    SELECT $1::text, $2::text, $3::bytea, 201, $4::jsonb, $5::bytea, now() + $6::interval
    WHERE NOT EXISTS (SELECT FROM stale) AND NOT EXISTS (SELECT FROM seen)
    ON CONFLICT (principal, key) DO NOTHING
    RETURNING 1
), new_order AS (
    INSERT INTO orders (id, customer_id, status, version, currency, total_minor, note, created_at, updated_at)
    SELECT $7::uuid, $8::text, 'placed', 1, $9::text, $10::bigint, $11::text, $12::timestamptz, $12::timestamptz FROM claim
), new_line AS (
    INSERT INTO order_line (order_id, line_no, sku, quantity, unit_price_minor)
    SELECT $7::uuid, l.line_no, l.sku, l.quantity, l.unit_price_minor FROM claim, line l
), new_event AS (
    INSERT INTO outbox (event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers)
    SELECT $16::uuid, 'order', $7::uuid::text, 1, 'order.placed', 'orders.events.v1', $7::uuid::text, $17::bytea, $18::jsonb FROM claim
)
SELECT
    CASE
        WHEN EXISTS (SELECT FROM claim) THEN 'created'
        WHEN s.body IS NOT NULL THEN 'seen'      -- before stale: a finished twin wins over a changed price
        WHEN EXISTS (SELECT FROM stale) THEN 'stale'
        ELSE 'twin'
    END AS outcome,
    s.fingerprint, s.status, s.headers, s.body
FROM (VALUES (1)) AS one (x)
LEFT JOIN seen s ON true
