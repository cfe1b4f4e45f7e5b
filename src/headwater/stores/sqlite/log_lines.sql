-- name: insert
-- Lines in the order in which they were logged.
INSERT INTO log_lines (connection_id, stream_id, run_id, delivery_id, at, level, message)
SELECT value ->> 'connection_id', value ->> 'stream_id', value ->> 'run_id', value ->> 'delivery_id', value ->> 'at',
    value ->> 'level', value ->> 'message'
FROM json_each(:rows) ORDER BY key;

-- name: forget_earlier
-- Keep the newest lines of a run only.
DELETE FROM log_lines WHERE run_id = :run_id
    AND id <= (SELECT id FROM log_lines WHERE run_id = :run_id ORDER BY id DESC LIMIT 1 OFFSET :kept);

-- name: columns
-- Lines with the keys of what they belong to.
SELECT l.*, c.key AS connection_key, s.key AS stream_key, s.partition
FROM log_lines l JOIN connections c ON c.id = l.connection_id LEFT JOIN streams s ON s.id = l.stream_id
WHERE TRUE

-- name: purge_old
-- Lines past their retention, some at a time.
DELETE FROM log_lines WHERE id IN (SELECT id FROM log_lines WHERE at < :before ORDER BY at LIMIT :limit);

-- name: purge_many
-- Lines of a connection beyond its newest, some at a time.
DELETE FROM log_lines WHERE id IN (
    SELECT id FROM log_lines WHERE connection_id = :connection_id AND id <= (
        SELECT id FROM log_lines WHERE connection_id = :connection_id ORDER BY id DESC LIMIT 1 OFFSET :kept)
    ORDER BY id LIMIT :limit);
