-- Intend to charge an order that is reserved; of any other the event is done with. The lock keeps a cancel from passing in between.
-- $1 consumer $2 event_id $3 order_id $4 payment id $5 key $6 amount_minor $7 currency; answers what became of it, and how old an
-- intent of an earlier attempt is.
WITH o AS MATERIALIZED (
    SELECT status FROM orders WHERE id = $3::uuid FOR NO KEY UPDATE
), reserved AS MATERIALIZED (
    SELECT 1 FROM o WHERE status = 'reserved'
), made AS (
    INSERT INTO payment (id, order_id, kind, state, amount_minor, currency, idempotency_key)
    SELECT $4::uuid, $3::uuid, 'charge', 'started', $6::bigint, $7::text, $5::text FROM reserved
    ON CONFLICT (idempotency_key) DO NOTHING
), claim AS (
    INSERT INTO inbox (consumer, event_id)
    SELECT $1::text, $2::uuid WHERE NOT EXISTS (SELECT FROM reserved)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT
    CASE
        WHEN EXISTS (SELECT FROM reserved) THEN 'intended'
        WHEN EXISTS (SELECT FROM claim) THEN 'superseded'
        ELSE 'duplicate'
    END AS outcome,
    coalesce((SELECT extract(epoch FROM now() - p.created_at) FROM payment p WHERE p.idempotency_key = $5::text), 0)::float8 AS age_s
