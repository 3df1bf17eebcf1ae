-- Settle a reservation: what the ledger says was reserved goes back ('release') or out ('ship').
-- Runs after the order and its stock rows are locked in the same transaction (SETTLE_LOCK);
-- the ledger's primary key makes a second run write nothing.
-- $1 order_id $2 kind
WITH written AS (
    INSERT INTO stock_ledger (ref_id, sku, kind, quantity)
    SELECT $1::uuid, r.sku, $2::text, r.quantity
    FROM stock_ledger r
    WHERE r.ref_id = $1::uuid AND r.kind = 'reserve'
      AND NOT EXISTS (SELECT FROM stock_ledger d WHERE d.ref_id = r.ref_id AND d.sku = r.sku AND d.kind IN ('release', 'ship'))
    ON CONFLICT DO NOTHING
    RETURNING sku, quantity
), returned AS (
    UPDATE stock s SET available = s.available + w.quantity
    FROM written w
    WHERE $2::text = 'release' AND s.sku = w.sku
)
SELECT count(*) AS lines FROM written
