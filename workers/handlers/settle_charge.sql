-- Settle a charge: lock the order, claim the event, note the provider's word, move the order if it still waits for it, say so.
-- A cancel that was first leaves nothing to move: its own event voids or refunds (G6).
-- $1 consumer $2 event_id $3 order_id $4 key $5 provider's state $6 statuses to move from $7 status to move to $8 reason
-- $9 event to say $10 its type $11 its topic $12 its payload $13 its headers
WITH o AS MATERIALIZED (
    SELECT 1 FROM orders WHERE id = $3::uuid FOR NO KEY UPDATE
), claim AS (                    -- after the lock, before any effect
    INSERT INTO inbox (consumer, event_id)
    SELECT $1::text, $2::uuid WHERE (SELECT count(*) FROM o) >= 0
    ON CONFLICT DO NOTHING
    RETURNING 1
), settled AS (
    UPDATE payment SET state = $5::text, updated_at = now()
    WHERE idempotency_key = $4::text AND EXISTS (SELECT FROM claim)
), moved AS (
    UPDATE orders
    SET status = $7::text, status_reason = $8::text, version = version + 1, updated_at = now(), closed_at = coalesce(closed_at, now())
    WHERE id = $3::uuid AND status = ANY($6::text[]) AND EXISTS (SELECT FROM claim)
    RETURNING version
), said AS (
    INSERT INTO outbox (event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers)
    SELECT $9::uuid, 'order', $3::uuid::text, m.version, $10::text, $11::text, $3::uuid::text, $12::bytea, $13::jsonb FROM moved m
)
SELECT CASE
    WHEN NOT EXISTS (SELECT FROM claim) THEN 'duplicate'
    WHEN EXISTS (SELECT FROM moved) THEN 'applied'
    ELSE 'superseded'
END AS outcome
