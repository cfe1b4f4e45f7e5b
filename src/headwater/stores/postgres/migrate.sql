-- name: exists
-- Whether there is a schema at all.
SELECT EXISTS (SELECT 1 FROM pg_class WHERE relname = 'schema' AND relnamespace = current_schema()::regnamespace);

-- name: version
-- What the database has.
SELECT version, oldest FROM schema ORDER BY version DESC LIMIT 1;

-- name: one_at_a_time
-- Nodes that migrate do so one after the other, however long the first one takes.
SELECT set_config('lock_timeout', '0', true), pg_advisory_xact_lock(5252, 5);

-- name: wait_no_longer
-- The step itself does not hold up others behind a lock that it waits for.
SELECT set_config('lock_timeout', %(seconds)s, true);

-- name: make_table
-- Each version that the database has had, and the oldest one whose code may run on it.
CREATE TABLE IF NOT EXISTS schema (version integer PRIMARY KEY, name text NOT NULL, oldest integer NOT NULL);

-- name: record
-- The migration is part of the database.
INSERT INTO schema (version, name, oldest) VALUES (%(number)s, %(name)s, %(oldest)s);
