-- Intend to charge orders that are reserved; of any other the event is done with. The locks keep a cancel from passing in between.
-- Arrays, an element an event: $1 consumers $2 event ids $3 order ids $4 payment ids $5 keys $6 amounts $7 currencies.
-- Answers in their order what became of each, and how old an intent of an earlier attempt is.
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::bigint[], $7::text[])
        WITH ORDINALITY AS w (consumer, event_id, order_id, payment_id, key, amount_minor, currency, n)
), o AS MATERIALIZED (
    SELECT id, status FROM orders WHERE id = ANY($3::uuid[]) ORDER BY id FOR NO KEY UPDATE
), reserved AS MATERIALIZED (
    SELECT w.* FROM wanted w JOIN o ON o.id = w.order_id WHERE o.status = 'reserved'
), made AS (
    INSERT INTO payment (id, order_id, kind, state, amount_minor, currency, idempotency_key)
    SELECT payment_id, order_id, 'charge', 'started', amount_minor, currency, key FROM reserved ORDER BY key
    ON CONFLICT (idempotency_key) DO NOTHING
), claim AS (
    INSERT INTO inbox (consumer, event_id)
    SELECT consumer, event_id FROM wanted w WHERE NOT EXISTS (SELECT FROM reserved r WHERE r.n = w.n) ORDER BY event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id
)
SELECT
    CASE
        WHEN EXISTS (SELECT FROM reserved r WHERE r.n = w.n) THEN 'intended'
        WHEN EXISTS (SELECT FROM claim c WHERE c.event_id = w.event_id) THEN 'superseded'
        ELSE 'duplicate'
    END AS outcome,
    coalesce((SELECT extract(epoch FROM now() - p.created_at) FROM payment p WHERE p.idempotency_key = w.key), 0)::float8 AS age_s
FROM wanted w
ORDER BY w.n
