-- name: one_at_a_time
-- Nodes that declare their types do so one after the other.
SELECT pg_advisory_xact_lock(5252, 6);

-- name: is_taken
-- Whether a table, an index or a sequence has this name.
SELECT 1 FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname = %(name)s AND relkind <> 'v';

-- name: present
-- The text that a view was made with.
SELECT obj_description(oid, 'pg_class') FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relname = %(name)s AND relkind = 'v';
