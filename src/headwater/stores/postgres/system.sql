-- name: audit
-- Write down an operator's act.
INSERT INTO audit (at, actor, act, target, detail) VALUES (%(at)s, %(actor)s, %(act)s, %(target)s, %(detail)s);

-- name: audit_log
-- Acts that match, newest first.
SELECT * FROM audit
WHERE (%(after)s::bigint IS NULL OR id < %(after)s)
    AND (%(actor)s::text IS NULL OR actor = %(actor)s)
    AND (%(act)s::text IS NULL OR act = %(act)s OR starts_with(act, %(act)s::text || '.'))
    AND (%(target)s::text IS NULL OR starts_with(target, %(target)s::text))
    AND (%(since)s::bigint IS NULL OR at >= %(since)s)
    AND (%(until)s::bigint IS NULL OR at < %(until)s)
ORDER BY id DESC LIMIT %(limit)s;

-- name: insert_api_key
-- Store the hash of a key.
INSERT INTO api_keys (name, hash, scopes, tenant, created_at, expires_at)
VALUES (%(name)s, %(hash)s, %(scopes)s, %(tenant)s, %(at)s, %(expires_at)s) RETURNING *;

-- name: api_key_exists
-- Whether a hash is stored, expired or not.
SELECT 1 FROM api_keys WHERE hash = %(hash)s;

-- name: api_key
-- The unexpired key of a hash.
SELECT * FROM api_keys WHERE hash = %(hash)s AND (expires_at IS NULL OR expires_at > %(at)s);

-- name: position
-- How far a sink has come.
SELECT position FROM sinks WHERE name = %(name)s;

-- name: set_position
-- Note how far a sink has come.
INSERT INTO sinks (name, position, moved_at) VALUES (%(name)s, %(position)s, %(at)s)
ON CONFLICT (name) DO UPDATE SET position = excluded.position, moved_at = excluded.moved_at;
