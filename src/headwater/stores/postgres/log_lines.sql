-- name: insert
-- Lines in the order in which they were logged.
INSERT INTO log_lines (connection_id, stream_id, run_id, delivery_id, at, level, message)
SELECT j.connection_id, j.stream_id, j.run_id, j.delivery_id, j.at, j.level, j.message
FROM ROWS FROM (json_to_recordset(%(rows)s::json) AS (connection_id bigint, stream_id bigint, run_id bigint,
    delivery_id bigint, at bigint, level bigint, message text)) WITH ORDINALITY
    AS j (connection_id, stream_id, run_id, delivery_id, at, level, message, number)
ORDER BY j.number;

-- name: forget_earlier
-- Keep the newest lines of a run only.
DELETE FROM log_lines WHERE run_id = %(run_id)s
    AND id <= (SELECT id FROM log_lines WHERE run_id = %(run_id)s ORDER BY id DESC LIMIT 1 OFFSET %(kept)s);

-- name: columns
-- Lines with the keys of what they belong to.
SELECT l.*, c.key AS connection_key, s.key AS stream_key, s.partition
FROM log_lines l JOIN connections c ON c.id = l.connection_id LEFT JOIN streams s ON s.id = l.stream_id
WHERE TRUE

-- name: purge_old
-- Lines past their retention, some at a time.
DELETE FROM log_lines WHERE id IN (SELECT id FROM log_lines WHERE at < %(before)s ORDER BY at LIMIT %(limit)s);

-- name: purge_many
-- Lines of a connection beyond its newest, some at a time.
DELETE FROM log_lines WHERE id IN (
    SELECT id FROM log_lines WHERE connection_id = %(connection_id)s AND id <= (
        SELECT id FROM log_lines WHERE connection_id = %(connection_id)s ORDER BY id DESC LIMIT 1 OFFSET %(kept)s)
    ORDER BY id LIMIT %(limit)s);
