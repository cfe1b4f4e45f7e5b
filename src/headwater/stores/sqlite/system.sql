-- name: audit
-- Write down an operator's act.
INSERT INTO audit (at, actor, act, target, detail) VALUES (:at, :actor, :act, :target, :detail);

-- name: audit_log
-- Acts that match, newest first.
SELECT * FROM audit
WHERE (:after IS NULL OR id < :after)
    AND (:actor IS NULL OR actor = :actor)
    AND (:act IS NULL OR act = :act OR substr(act, 1, length(:act) + 1) = :act || '.')
    AND (:target IS NULL OR substr(target, 1, length(:target)) = :target)
    AND (:since IS NULL OR at >= :since)
    AND (:until IS NULL OR at < :until)
ORDER BY id DESC LIMIT :limit;

-- name: insert_api_key
-- Store the hash of a key.
INSERT INTO api_keys (name, hash, scopes, tenant, created_at, expires_at)
VALUES (:name, :hash, :scopes, :tenant, :at, :expires_at) RETURNING *;

-- name: api_key
-- The unexpired key of a hash.
SELECT * FROM api_keys WHERE hash = :hash AND (expires_at IS NULL OR expires_at > :at);

-- name: position
-- How far a sink has come.
SELECT position FROM sinks WHERE name = :name;

-- name: set_position
-- Note how far a sink has come.
INSERT INTO sinks (name, position, moved_at) VALUES (:name, :position, :at)
ON CONFLICT (name) DO UPDATE SET position = excluded.position, moved_at = excluded.moved_at;

-- name: old_deliveries
-- Finished deliveries past their retention, some at a time.
SELECT json_group_array(id) FROM (
    SELECT id FROM deliveries INDEXED BY deliveries_finished
    WHERE state IN ('done', 'dead') AND finished_at < :before ORDER BY finished_at LIMIT :limit
);

-- name: purge_keys
-- The idempotency keys of purged deliveries.
DELETE FROM emission_keys
WHERE delivery_id IN (SELECT value FROM json_each(:ids)) AND delivery_id IS NOT NULL;

-- name: purge_bodies
-- The bodies of purged deliveries.
DELETE FROM bodies WHERE delivery_id IN (SELECT value FROM json_each(:ids));

-- name: purge_deliveries
-- Deliveries past their retention.
DELETE FROM deliveries WHERE id IN (SELECT value FROM json_each(:ids));

-- name: purge_rejections
-- Refused requests past the retention of deliveries.
DELETE FROM rejections WHERE hour < :before;

-- name: purge_connection_hours
-- Figures of connections before the last day.
DELETE FROM connection_hours WHERE hour < :before;

-- name: purge_stream_hours
-- Figures of streams before the last day.
DELETE FROM stream_hours WHERE hour < :before;

-- name: purge_runs
-- Runs past their retention, some at a time, by cascade with their pages and requests.
DELETE FROM runs WHERE id IN (
    SELECT id FROM runs INDEXED BY runs_finished
    WHERE state IN ('succeeded', 'failed', 'cancelled') AND finished_at < :before ORDER BY finished_at LIMIT :limit
);
