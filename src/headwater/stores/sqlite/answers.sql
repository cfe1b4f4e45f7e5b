-- name: forget
-- Answers that are kept no longer.
DELETE FROM answers WHERE claimed_at <= :after;

-- name: claim
-- A key for a request; one whose request began too long ago and was never answered is given again.
INSERT INTO answers (key, fingerprint, claimed_at) VALUES (:key, :fingerprint, :at)
ON CONFLICT (key) DO UPDATE SET claimed_at = excluded.claimed_at
WHERE answers.status IS NULL AND answers.claimed_at <= :silent AND answers.fingerprint = excluded.fingerprint;

-- name: answer
-- What a key stands for.
SELECT fingerprint, status, location, body FROM answers WHERE key = :key;

-- name: keep
-- What a request was answered.
UPDATE answers SET status = :status, location = :location, body = :body WHERE key = :key;

-- name: release
-- A key that stands for nothing: its request did nothing.
DELETE FROM answers WHERE key = :key AND status IS NULL;
