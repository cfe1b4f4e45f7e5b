-- name: hold
-- Hold connections, lowest id first: whoever writes for one holds it before anything else, so that commits of one
-- connection follow each other and no two writers wait for each other in a circle. Readers, and deliveries that only
-- rely on its existence, wait for nobody.
SELECT id FROM connections WHERE id = ANY(%(ids)s::bigint[]) ORDER BY id FOR NO KEY UPDATE;

-- name: hold_stream
-- Hold the connection of a stream.
SELECT c.id FROM connections c JOIN streams s ON s.connection_id = c.id WHERE s.id = %(stream_id)s
FOR NO KEY UPDATE OF c;

-- name: hold_run
-- Hold the connection of a run.
SELECT c.id FROM connections c JOIN runs r ON r.connection_id = c.id WHERE r.id = %(run_id)s FOR NO KEY UPDATE OF c;

-- name: hold_all
-- Hold every connection.
SELECT id FROM connections ORDER BY id FOR NO KEY UPDATE;

-- name: rely
-- Make sure that connections stay for the length of the transaction; those that are there.
SELECT id FROM connections WHERE id = ANY(%(ids)s::bigint[]) ORDER BY id FOR KEY SHARE;

-- name: hold_for_removal
-- Wait for everybody who holds a connection or relies on it.
SELECT id FROM connections WHERE id = %(connection_id)s FOR UPDATE;

-- name: insert
-- Store a connection, unless its key or endpoint is taken.
INSERT INTO connections (key, connector, tenant, endpoint_id, settings, created_at)
VALUES (%(key)s, %(connector)s, %(tenant)s, %(endpoint_id)s, %(settings)s, %(at)s)
ON CONFLICT DO NOTHING RETURNING *;

-- name: by_key
-- The connection of a key.
SELECT * FROM connections WHERE key = %(key)s;

-- name: all
-- All connections.
SELECT * FROM connections ORDER BY key;

-- name: update_settings
-- Replace the plain settings.
UPDATE connections SET settings = %(settings)s WHERE id = %(connection_id)s;

-- name: pause
-- Pause a connection.
UPDATE connections SET paused_at = %(at)s, paused_reason = %(reason)s, needs_attention = %(needs_attention)s
WHERE id = %(connection_id)s;

-- name: resume
-- Undo a pause.
UPDATE connections SET paused_at = NULL, paused_reason = NULL, needs_attention = false WHERE id = %(connection_id)s;

-- name: unblock
-- The provider's silence is over.
UPDATE streams SET blocked_until = NULL WHERE connection_id = %(connection_id)s;

-- name: raise_floor
-- The feed does not get shorter.
UPDATE feed SET floor = greatest((SELECT max(sequence) FROM versions), floor);

-- name: remove_bodies
-- The bodies of a connection's deliveries.
DELETE FROM bodies WHERE delivery_id IN (SELECT id FROM deliveries WHERE connection_id = %(connection_id)s);

-- name: remove
-- A connection, and by cascade its secrets, streams, runs and quarantine.
DELETE FROM connections WHERE id = %(connection_id)s;

-- name: insert_secret
-- Store a secret.
INSERT INTO secrets (connection_id, field, ciphertext) VALUES (%(connection_id)s, %(field)s, %(ciphertext)s);

-- name: expire_secrets
-- The secrets of a field before a rotation; those that ran out sooner keep their end.
UPDATE secrets SET expires_at = least(expires_at, %(until)s)
WHERE connection_id = %(connection_id)s AND field = %(field)s;

-- name: drop_secrets
-- Forget the secrets of a field.
DELETE FROM secrets WHERE connection_id = %(connection_id)s AND field = %(field)s;

-- name: valid_secrets
-- The secrets valid at an instant, the newest of a field first.
SELECT field, ciphertext, expires_at FROM secrets
WHERE connection_id = %(connection_id)s AND (expires_at IS NULL OR expires_at > %(at)s)
ORDER BY field COLLATE "C", id DESC;

-- name: all_secrets
-- Every stored secret.
SELECT connection_id, field, ciphertext, expires_at FROM secrets ORDER BY connection_id, field COLLATE "C", id DESC;

-- name: replace_ciphertext
-- Swap one ciphertext if it still stands.
UPDATE secrets SET ciphertext = %(new)s
WHERE connection_id = %(connection_id)s AND field = %(field)s AND ciphertext = %(old)s;
