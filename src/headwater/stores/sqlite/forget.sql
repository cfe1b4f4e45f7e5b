-- name: keys
-- Some idempotency keys of a connection.
DELETE FROM emission_keys WHERE connection_id = :connection_id
    AND key IN (SELECT key FROM emission_keys WHERE connection_id = :connection_id LIMIT :limit);

-- name: doomed
-- The records that go next.
SELECT json_group_array(json_array(type_id, source_id, latest, deleted)) FROM (
    SELECT type_id, source_id, latest, deleted FROM records
    WHERE connection_id = :connection_id AND (:type IS NULL OR type_id = (SELECT id FROM types WHERE name = :type))
    ORDER BY type_id, source_id LIMIT :limit
);

-- name: versions
-- Every version in the linked lists that begin here.
WITH RECURSIVE history (sequence) AS (
    SELECT value FROM json_each(:latest)
    UNION ALL
    SELECT v.previous FROM history h JOIN versions v ON v.sequence = h.sequence WHERE v.previous IS NOT NULL
)
DELETE FROM versions WHERE sequence IN (SELECT sequence FROM history);

-- name: records
-- The records themselves.
DELETE FROM records WHERE connection_id = :connection_id
    AND (type_id, source_id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:ids));

-- name: populations
-- So many fewer are live.
UPDATE populations SET live = live - j.count
FROM (SELECT value ->> 0 AS type_id, value ->> 1 AS count FROM json_each(:fewer)) j
WHERE populations.connection_id = :connection_id AND populations.type_id = j.type_id;
