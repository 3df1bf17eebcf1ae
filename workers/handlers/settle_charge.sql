-- Settle charges: lock the orders, claim the events, note the provider's word, move each order if it still waits for it, say so.
-- A cancel that was first leaves nothing to move: its own event voids or refunds (G6).
-- $1 statuses to move from $2 topic; then arrays, an element an event: $3 consumers $4 event ids $5 order ids $6 keys
-- $7 provider's states $8 statuses to move to $9 reasons $10 events to say $11 their types $12 their payloads $13 their headers.
-- Answers in their order what became of each.
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest(
        $3::text[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[], $10::uuid[], $11::text[], $12::bytea[], $13::jsonb[]
    ) WITH ORDINALITY AS w (consumer, event_id, order_id, key, state, status, reason, said_id, said_type, payload, headers, n)
), o AS MATERIALIZED (
    SELECT 1 FROM orders WHERE id = ANY($5::uuid[]) ORDER BY id FOR NO KEY UPDATE
), claim AS (                    -- after the locks, before any effect
    INSERT INTO inbox (consumer, event_id)
    SELECT consumer, event_id FROM wanted WHERE (SELECT count(*) FROM o) >= 0 ORDER BY event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id
), first AS MATERIALIZED (
    SELECT w.* FROM wanted w JOIN claim USING (event_id)
), settled AS (
    UPDATE payment p SET state = f.state, updated_at = now() FROM first f WHERE p.idempotency_key = f.key
), moved AS (
    UPDATE orders t
    SET status = f.status, status_reason = f.reason, version = t.version + 1, updated_at = now(), closed_at = coalesce(t.closed_at, now())
    FROM first f
    WHERE t.id = f.order_id AND t.status = ANY($1::text[])
    RETURNING f.n, t.version
), said AS (
    INSERT INTO outbox (event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers)
    SELECT f.said_id, 'order', f.order_id::text, m.version, f.said_type, $2::text, f.order_id::text, f.payload, f.headers
    FROM moved m JOIN first f USING (n)
)
SELECT CASE
    WHEN EXISTS (SELECT FROM moved m WHERE m.n = w.n) THEN 'applied'
    WHEN EXISTS (SELECT FROM claim c WHERE c.event_id = w.event_id) THEN 'superseded'
    ELSE 'duplicate'
END AS outcome
FROM wanted w
ORDER BY w.n
