-- name: insert
-- Store a connection.
INSERT INTO connections (key, connector, tenant, endpoint_id, settings, created_at)
VALUES (:key, :connector, :tenant, :endpoint_id, :settings, :at) RETURNING id;

-- name: by_key
-- The connection of a key.
SELECT * FROM connections WHERE key = :key;

-- name: by_endpoint
-- The connection that has an endpoint id.
SELECT id FROM connections WHERE endpoint_id = :endpoint_id;

-- name: by_id
-- The connection of a number.
SELECT * FROM connections WHERE id = :connection_id;

-- name: all
-- All connections.
SELECT * FROM connections ORDER BY key;

-- name: update_settings
-- Replace the plain settings.
UPDATE connections SET settings = :settings WHERE id = :connection_id;

-- name: pause
-- Pause a connection.
UPDATE connections SET paused_at = :at, paused_reason = :reason, needs_attention = :needs_attention
WHERE id = :connection_id;

-- name: resume
-- Undo a pause.
UPDATE connections SET paused_at = NULL, paused_reason = NULL, needs_attention = 0 WHERE id = :connection_id;

-- name: unblock
-- The provider's silence is over.
UPDATE streams SET blocked_until = NULL WHERE connection_id = :connection_id;

-- name: remove_bodies
-- The bodies of a connection's deliveries.
DELETE FROM bodies WHERE delivery_id IN (SELECT id FROM deliveries WHERE connection_id = :connection_id);

-- name: remove
-- A connection, and by cascade its secrets, streams, runs and deliveries.
DELETE FROM connections WHERE id = :connection_id;

-- name: insert_secret
-- Store a secret.
INSERT INTO secrets (connection_id, field, ciphertext) VALUES (:connection_id, :field, :ciphertext);

-- name: expire_secrets
-- The secrets of a field before a rotation; those that ran out sooner keep their end.
UPDATE secrets SET expires_at = min(coalesce(expires_at, :until), :until)
WHERE connection_id = :connection_id AND field = :field;

-- name: drop_secrets
-- Forget the secrets of a field.
DELETE FROM secrets WHERE connection_id = :connection_id AND field = :field;

-- name: valid_secrets
-- The secrets valid at an instant, the newest of a field first.
SELECT field, ciphertext, expires_at FROM secrets
WHERE connection_id = :connection_id AND (expires_at IS NULL OR expires_at > :at)
ORDER BY field, id DESC;

-- name: all_secrets
-- Every stored secret.
SELECT connection_id, field, ciphertext, expires_at FROM secrets ORDER BY connection_id, field, id DESC;

-- name: replace_ciphertext
-- Swap one ciphertext if it still stands.
UPDATE secrets SET ciphertext = :new WHERE connection_id = :connection_id AND field = :field AND ciphertext = :old;
