-- name: versions
-- Versions with where they came from; a source and a condition follow.
SELECT v.sequence, c.key AS connection, t.name AS type, v.source_id, v.version, v.deleted, v.stale, v.payload,
    lower(hex(v.hash)) AS hash, v.as_of, o.observed_at, s.key AS stream, o.origin, o.run_id, o.page, o.delivery_id,
    cv.name AS connector_version

-- name: joins
-- What a version's numbers stand for.
JOIN origins o ON o.id = v.origin_id
JOIN connections c ON c.id = v.connection_id
JOIN types t ON t.id = v.type_id
JOIN streams s ON s.id = v.stream_id
JOIN connector_versions cv ON cv.id = o.connector_version_id

-- name: history
-- The whole linked list of one record, newest first.
WITH RECURSIVE history (sequence, previous) AS (
    SELECT v.sequence, v.previous FROM records r JOIN versions v ON v.sequence = r.latest
    WHERE r.connection_id = (SELECT id FROM connections WHERE key = :connection)
        AND r.type_id = (SELECT id FROM types WHERE name = :type) AND r.source_id = :source_id
    UNION ALL
    SELECT v.sequence, v.previous FROM history h JOIN versions v ON v.sequence = h.previous
)

-- name: by_connection
-- The connections to list records of, in order.
SELECT id, key FROM connections
WHERE (:connection IS NULL OR key = :connection) AND (:after IS NULL OR key >= :after) ORDER BY key;

-- name: types_of
-- The types that a connection has records of, in order.
SELECT t.id, t.name FROM populations p JOIN types t ON t.id = p.type_id
WHERE p.connection_id = :connection_id AND (:type IS NULL OR t.name = :type) ORDER BY t.name;

-- name: page_of_records
-- The current versions of one connection and type, by source id.
FROM records r
CROSS JOIN versions v ON v.sequence = r.sequence

-- name: one_record
-- That of one record.
WHERE r.connection_id = (SELECT id FROM connections WHERE key = :connection)
    AND r.type_id = (SELECT id FROM types WHERE name = :type) AND r.source_id = :source_id

-- name: record_conditions
-- Which of them; a source id within `[first, last)` and after the last one seen.
WHERE r.connection_id = :connection_id AND r.type_id = :type_id AND r.source_id > :after AND r.source_id >= :first
    AND (:last IS NULL OR r.source_id < :last) AND (:deleted IS NULL OR r.deleted = :deleted)
ORDER BY r.source_id LIMIT :limit

-- name: origins_of_delivery
-- The ranges of versions that a delivery made.
SELECT id, last_sequence FROM origins WHERE delivery_id = :delivery_id ORDER BY id DESC;

-- name: populations
-- How many live records there are.
SELECT c.key, t.name, p.live FROM populations p
JOIN connections c ON c.id = p.connection_id JOIN types t ON t.id = p.type_id
ORDER BY c.key, t.name;

-- name: high_water
-- The newest sequence given out: SQLite commits in order, so that all below it are there to be read.
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'versions'), 0);

-- name: quarantined
-- Quarantined records, newest first.
SELECT q.*, c.key AS connection_key, s.key AS stream_key
FROM quarantine q JOIN connections c ON c.id = q.connection_id JOIN streams s ON s.id = q.stream_id
WHERE (:connection IS NULL OR c.key = :connection) AND (:stream IS NULL OR s.key = :stream)
    AND (:state IS NULL OR q.state = :state) AND (:after IS NULL OR q.id < :after)
ORDER BY q.id DESC LIMIT :limit;

-- name: releasable
-- Where quarantined records belong.
SELECT q.id, q.connection_id, q.run_id, q.page, q.delivery_id, s.partition, q.state
FROM json_each(:ids) j JOIN quarantine q ON q.id = j.value JOIN streams s ON s.id = q.stream_id;

-- name: release
-- Mark quarantined records as released.
UPDATE quarantine SET state = 'released' WHERE id IN (SELECT value FROM json_each(:ids));

-- name: drop
-- Mark waiting quarantined records as dropped.
UPDATE quarantine SET state = 'dropped' WHERE state = 'waiting' AND id IN (SELECT value FROM json_each(:ids));
