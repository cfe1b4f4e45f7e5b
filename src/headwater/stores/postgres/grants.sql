-- name: forget
-- Authorizations that ran out.
DELETE FROM authorizations WHERE expires_at <= %(at)s;

-- name: begin
-- Keep what a callback needs.
INSERT INTO authorizations (state, connection_id, sealed, expires_at)
VALUES (%(state)s, %(connection_id)s, %(sealed)s, %(expires_at)s);

-- name: take
-- Give it out, once.
DELETE FROM authorizations WHERE state = %(state)s RETURNING connection_id, sealed, expires_at;

-- name: lease
-- The right to change a token: free, run out, or taken over.
INSERT INTO grants (connection_id, epoch, leased_until) VALUES (%(connection_id)s, 1, %(until)s)
ON CONFLICT (connection_id) DO UPDATE SET epoch = grants.epoch + 1, leased_until = excluded.leased_until
WHERE grants.leased_until IS NULL OR grants.leased_until <= %(at)s OR %(takes_over)s = 1
RETURNING epoch;

-- name: release
-- Let it go, whoever holds that epoch.
UPDATE grants SET leased_until = NULL WHERE connection_id = %(connection_id)s AND epoch = %(epoch)s;
