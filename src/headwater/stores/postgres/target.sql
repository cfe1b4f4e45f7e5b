-- name: one_copy
-- Whether this session alone copies into the database from now on.
SELECT pg_try_advisory_lock(5252, 7);

-- name: copied
-- This session copies no more.
SELECT pg_advisory_unlock_all();

-- name: is_marked
-- Whether a copy was ever begun here.
SELECT EXISTS (SELECT 1 FROM pg_class WHERE relname = 'store_copy' AND relnamespace = current_schema()::regnamespace);

-- name: mark
-- How the copy stands.
SELECT fingerprint, state, note FROM store_copy;

-- name: make_mark
-- From now on no store opens the database before the copy is complete. `reached` says how far each table has come.
CREATE TABLE store_copy (
    fingerprint text NOT NULL,
    state text NOT NULL CHECK (state IN ('copying', 'complete', 'broken')),
    ended_at bigint,
    note text NOT NULL DEFAULT ''
);

-- name: make_reached
-- How far each table has come, written in the transaction of its batch.
CREATE TABLE store_copy_reached (
    name text PRIMARY KEY,
    after bytea NOT NULL,
    count bigint NOT NULL
);

-- name: insert_mark
-- The copy begins.
INSERT INTO store_copy (fingerprint, state) VALUES (%(fingerprint)s, 'copying');

-- name: reached
-- How far a table has come.
SELECT after, count FROM store_copy_reached WHERE name = %(name)s;

-- name: note_reached
-- A batch of a table, up to a key.
INSERT INTO store_copy_reached (name, after, count) VALUES (%(name)s, %(after)s, %(count)s)
ON CONFLICT (name) DO UPDATE SET after = excluded.after, count = store_copy_reached.count + excluded.count;

-- name: end
-- The copy is complete, or not usable.
UPDATE store_copy SET state = %(state)s, ended_at = %(at)s, note = %(note)s;

-- name: relations
-- Whatever is in the database beside the server's own, the engine's queue, and what belongs to extensions, columns and
-- partitions.
SELECT n.nspname AS schema, c.relname AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT c.relispartition
    AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%%' AND n.nspname <> 'headwater_engine'
    AND NOT EXISTS (
        SELECT 1 FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'e', 'i'))
ORDER BY 1, 2;

-- name: columns
-- The columns of our tables that are written, and their places in the primary key.
SELECT c.relname AS table_name, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
    array_position(k.conkey, a.attnum) AS key_place
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = current_schema()::regnamespace
ORDER BY c.relname, a.attnum;

-- name: references
-- Which tables refer to which.
SELECT DISTINCT c.relname AS table_name, f.relname AS refers_to
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class f ON f.oid = k.confrelid
WHERE k.contype = 'f' AND c.relnamespace = current_schema()::regnamespace;

-- name: identities
-- The sequences behind the numbers that tables give out.
SELECT c.relname AS table_name, pg_get_serial_sequence(quote_ident(c.relname), a.attname) AS sequence
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attidentity <> ''
WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
ORDER BY c.relname;

-- name: set_number
-- The next number of a sequence is one higher.
SELECT setval(%(sequence)s::regclass, %(number)s);

-- name: set_floor
-- The feed goes at least so far, though the versions up there may have gone with their connection.
UPDATE feed SET floor = %(number)s;
