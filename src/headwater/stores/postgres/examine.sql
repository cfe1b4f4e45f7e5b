-- name: server
-- What server this is.
SELECT current_setting('server_version_num')::integer AS version, current_setting('server_version') AS text,
    current_setting('server_encoding') AS encoding;

-- name: durability
-- The settings on which it depends that an acknowledged commit is there after a power cut.
SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit;

-- name: size
-- How much disk the database takes.
SELECT pg_database_size(current_database());
