-- name: forget
-- Answers that are kept no longer.
DELETE FROM answers WHERE claimed_at <= %(after)s;

-- name: claim
-- A key for a request; one whose request began too long ago and was never answered is given again.
INSERT INTO answers (key, fingerprint, claimed_at) VALUES (%(key)s, %(fingerprint)s, %(at)s)
ON CONFLICT (key) DO UPDATE SET claimed_at = excluded.claimed_at
WHERE answers.status IS NULL AND answers.claimed_at <= %(silent)s AND answers.fingerprint = excluded.fingerprint;

-- name: answer
-- What a key stands for.
SELECT fingerprint, status, location, body FROM answers WHERE key = %(key)s;

-- name: keep
-- What a request was answered.
UPDATE answers SET status = %(status)s, location = %(location)s, body = %(body)s WHERE key = %(key)s;

-- name: release
-- A key that stands for nothing: its request did nothing.
DELETE FROM answers WHERE key = %(key)s AND status IS NULL;
