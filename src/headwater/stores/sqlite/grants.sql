-- name: forget
-- Authorizations that ran out.
DELETE FROM authorizations WHERE expires_at <= :at;

-- name: begin
-- Keep what a callback needs.
INSERT INTO authorizations (state, connection_id, sealed, expires_at)
VALUES (:state, :connection_id, :sealed, :expires_at);

-- name: take
-- Give it out, once.
DELETE FROM authorizations WHERE state = :state RETURNING connection_id, sealed, expires_at;

-- name: lease
-- The right to change a token: free, run out, or taken over.
INSERT INTO grants (connection_id, epoch, leased_until) VALUES (:connection_id, 1, :until)
ON CONFLICT (connection_id) DO UPDATE SET epoch = grants.epoch + 1, leased_until = excluded.leased_until
WHERE grants.leased_until IS NULL OR grants.leased_until <= :at OR :takes_over = 1
RETURNING epoch;

-- name: release
-- Let it go, whoever holds that epoch.
UPDATE grants SET leased_until = NULL WHERE connection_id = :connection_id AND epoch = :epoch;
