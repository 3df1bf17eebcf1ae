-- Entries of the timeline that are not there yet, in one order for everybody: two who add the same cannot wait for each other in a circle.
-- $1 order ids $2 versions $3 types $4 times $5 reasons (NULL: none); answers those that are new.
INSERT INTO order_timeline (order_id, version, type, at, detail)
SELECT e.order_id, e.version, e.type, e.at, CASE WHEN e.reason IS NULL THEN '{}' ELSE jsonb_build_object('reason', e.reason) END
FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::timestamptz[], $5::text[]) AS e (order_id, version, type, at, reason)
ORDER BY e.order_id, e.version
ON CONFLICT DO NOTHING
RETURNING order_id, version
