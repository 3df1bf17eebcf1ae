-- One lock order for everybody: orders by id, then stock by SKU. Mixing orders deadlocks (docs/adr/0007).
-- $1 order ids $2 skus; answers the number of stock rows locked.
WITH o AS MATERIALIZED (
    SELECT 1 FROM orders WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE
), s AS MATERIALIZED (
    SELECT 1 FROM stock WHERE sku = ANY($2::text[]) AND (SELECT count(*) FROM o) >= 0 ORDER BY sku FOR NO KEY UPDATE
)
SELECT count(*) FROM s
