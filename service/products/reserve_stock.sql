-- Reserve one order's stock: claim the event, guard the order, all or nothing, say what happened.
-- Runs after RESERVE_LOCK in the same transaction, so this snapshot sees every committed change of the locked rows.
-- $1 consumer $2 event_id $3 order_id $4 skus $5 quantities $6 reserved_event $7 reserved_payload
-- $8 rejected_event $9 rejected_payload $10 headers
WITH claim AS (                  -- the inbox row and the effect commit together: once, or not at all
    INSERT INTO inbox (consumer, event_id) VALUES ($1::text, $2::uuid) ON CONFLICT DO NOTHING RETURNING 1
), wanted AS MATERIALIZED (
    SELECT w.sku, w.quantity FROM unnest($4::text[], $5::bigint[]) AS w (sku, quantity)
), short AS MATERIALIZED (
    SELECT w.sku
    FROM wanted w
    LEFT JOIN LATERAL (SELECT s.available FROM stock s WHERE s.sku = w.sku LIMIT 1) h ON true
    WHERE (h.available >= w.quantity) IS NOT TRUE
), moved AS (
    UPDATE orders o
    SET status = CASE WHEN EXISTS (SELECT FROM short) THEN 'rejected' ELSE 'reserved' END,
        status_reason = CASE WHEN EXISTS (SELECT FROM short) THEN 'out_of_stock' END,
        version = o.version + 1,
        updated_at = now(),
        closed_at = CASE WHEN EXISTS (SELECT FROM short) THEN now() END
    WHERE o.id = $3::uuid AND o.status = 'placed' AND EXISTS (SELECT FROM claim)
    RETURNING o.status, o.version
), drawn AS (
    UPDATE stock s SET available = s.available - w.quantity
    FROM wanted w, moved m
    WHERE m.status = 'reserved' AND s.sku = w.sku
), written AS (
    INSERT INTO stock_ledger (ref_id, sku, kind, quantity)
    SELECT $3::uuid, w.sku, 'reserve', w.quantity FROM wanted w, moved m WHERE m.status = 'reserved'
), said AS (
    INSERT INTO outbox (event_id, aggregate_type, aggregate_id, version, type, topic, key, payload, headers)
    SELECT
        CASE m.status WHEN 'reserved' THEN $6::uuid ELSE $8::uuid END, 'order', $3::uuid::text, m.version,
        'order.' || m.status, 'orders.events.v1', $3::uuid::text,
        CASE m.status WHEN 'reserved' THEN $7::bytea ELSE $9::bytea END, $10::jsonb
    FROM moved m
)
SELECT CASE
    WHEN NOT EXISTS (SELECT FROM claim) THEN 'duplicate'
    ELSE coalesce((SELECT m.status FROM moved m), 'superseded')
END AS outcome
