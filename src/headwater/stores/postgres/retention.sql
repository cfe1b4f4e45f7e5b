-- name: days
-- The days of the inbox that have a partition.
SELECT replace(c.relname, 'deliveries_', '')::bigint AS day
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'deliveries'::regclass ORDER BY day;

-- name: is_wanted
-- Whether a day still has a delivery that waits or is within its retention.
SELECT EXISTS (SELECT 1 FROM deliveries
    WHERE id >= %(first)s AND id < %(end)s AND (state = 'pending' OR finished_at >= %(before)s));

-- name: forget_keys
-- The idempotency keys that the deliveries of a day brought.
DELETE FROM emission_keys WHERE delivery_id >= %(first)s AND delivery_id < %(end)s;

-- name: forget_dedupes
-- The dedupe keys of a day's deliveries.
DELETE FROM dedupes k USING deliveries d
WHERE d.id >= %(first)s AND d.id < %(end)s
    AND k.connection_id = d.connection_id AND k.dedupe = d.dedupe AND k.delivery_id = d.id;

-- name: wait_shortly
-- Wait for no lock longer than this, in this transaction.
SELECT set_config('lock_timeout', %(milliseconds)s, true);

-- name: shut_inbox
-- Have the inbox alone for the moment of a drop; whoever holds it for longer keeps its day for the next time.
LOCK TABLE ONLY deliveries, ONLY bodies IN ACCESS EXCLUSIVE MODE;

-- name: count_day
-- The deliveries of a day.
SELECT count(*) FROM deliveries WHERE id >= %(first)s AND id < %(end)s;

-- name: old_deliveries
-- Finished deliveries past their retention, some at a time.
SELECT id FROM deliveries WHERE state IN ('done', 'dead') AND finished_at < %(before)s
ORDER BY finished_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED;

-- name: purge_keys
-- The idempotency keys of purged deliveries.
DELETE FROM emission_keys WHERE delivery_id = ANY(%(ids)s::bigint[]);

-- name: purge_dedupes
-- The dedupe keys of purged deliveries.
DELETE FROM dedupes k USING deliveries d
WHERE d.id = ANY(%(ids)s::bigint[])
    AND k.connection_id = d.connection_id AND k.dedupe = d.dedupe AND k.delivery_id = d.id;

-- name: purge_bodies
-- The bodies of purged deliveries.
DELETE FROM bodies WHERE delivery_id = ANY(%(ids)s::bigint[]);

-- name: purge_deliveries
-- Deliveries past their retention.
DELETE FROM deliveries WHERE id = ANY(%(ids)s::bigint[]);

-- name: purge_rejections
-- Refused requests past the retention of deliveries.
DELETE FROM rejections WHERE hour < %(before)s;

-- name: purge_connection_hours
-- Figures of connections before the last day.
DELETE FROM connection_hours WHERE hour < %(before)s;

-- name: purge_stream_hours
-- Figures of streams before the last day.
DELETE FROM stream_hours WHERE hour < %(before)s;

-- name: purge_runs
-- Runs past their retention, some at a time, by cascade with their pages and requests.
DELETE FROM runs WHERE id IN (
    SELECT id FROM runs WHERE state IN ('succeeded', 'failed', 'cancelled') AND finished_at < %(before)s
    ORDER BY finished_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED);
