-- name: versions
-- Versions with where they came from; a source and a condition follow.
SELECT v.sequence, c.key AS connection, t.name AS type, v.source_id, v.version, v.deleted, v.stale, v.payload,
    encode(v.hash, 'hex') AS hash, v.as_of, o.observed_at, s.key AS stream, o.origin, o.run_id, o.page, o.delivery_id,
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
    WHERE r.connection_id = (SELECT id FROM connections WHERE key = %(connection)s)
        AND r.type_id = (SELECT id FROM types WHERE name = %(type)s) AND r.source_id = %(source_id)s
    UNION ALL
    SELECT v.sequence, v.previous FROM history h JOIN versions v ON v.sequence = h.previous
)

-- name: by_connection
-- The connections to list records of, in order.
SELECT id, key FROM connections
WHERE (%(connection)s::text IS NULL OR key = %(connection)s) AND (%(after)s::text IS NULL OR key >= %(after)s)
ORDER BY key;

-- name: types_of
-- The types that a connection has records of, in order.
SELECT t.id, t.name FROM populations p JOIN types t ON t.id = p.type_id
WHERE p.connection_id = %(connection_id)s AND (%(type)s::text IS NULL OR t.name = %(type)s) ORDER BY t.name;

-- name: page_of_records
-- The current versions of some records, which are found and cut off by their key alone.
FROM (
    SELECT sequence, source_id FROM records
    WHERE connection_id = %(connection_id)s AND type_id = %(type_id)s AND source_id > %(after)s
        AND source_id >= %(first)s AND (%(last)s::text IS NULL OR source_id < %(last)s)
        AND (%(deleted)s::boolean IS NULL OR deleted = %(deleted)s)
    ORDER BY source_id LIMIT %(limit)s
) r
JOIN versions v ON v.sequence = r.sequence

-- name: one_record
-- The current version of one record.
FROM records r
JOIN versions v ON v.sequence = r.sequence

-- name: record_key
-- Which one.
WHERE r.connection_id = (SELECT id FROM connections WHERE key = %(connection)s)
    AND r.type_id = (SELECT id FROM types WHERE name = %(type)s) AND r.source_id = %(source_id)s

-- name: origins_of_delivery
-- The ranges of versions that a delivery made.
SELECT id, last_sequence FROM origins WHERE delivery_id = %(delivery_id)s ORDER BY id DESC;

-- name: populations
-- How many live records there are.
SELECT c.key, t.name, p.live FROM populations p
JOIN connections c ON c.id = p.connection_id JOIN types t ON t.id = p.type_id
ORDER BY c.key, t.name;

-- name: last_sequence
-- The newest sequence that is committed. What was merely given out may be given out again after a crash.
SELECT greatest((SELECT max(sequence) FROM versions), floor) FROM feed;

-- name: under_way
-- The first sequence that a transaction under way may have taken; see `take_sequences`.
SELECT min((classid::bigint << 32 | objid::bigint) & ((1::bigint << 48) - 1)) FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint >> 16 = 5252 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- name: slice
-- Some of the feed, cut off before anything is joined to it; further conditions and the limit follow.
FROM (SELECT * FROM versions WHERE sequence > %(after)s AND sequence <= %(last)s AND NOT stale

-- name: quarantined
-- Quarantined records, newest first.
SELECT q.*, c.key AS connection_key, s.key AS stream_key
FROM quarantine q JOIN connections c ON c.id = q.connection_id JOIN streams s ON s.id = q.stream_id
WHERE (%(connection)s::text IS NULL OR c.key = %(connection)s) AND (%(stream)s::text IS NULL OR s.key = %(stream)s)
    AND (%(state)s::text IS NULL OR q.state = %(state)s) AND (%(after)s::bigint IS NULL OR q.id < %(after)s)
ORDER BY q.id DESC LIMIT %(limit)s;

-- name: quarantine_homes
-- The connections of quarantined records.
SELECT DISTINCT connection_id FROM quarantine WHERE id = ANY(%(ids)s::bigint[]);

-- name: releasable
-- Where quarantined records belong.
SELECT q.id, q.connection_id, q.run_id, q.page, q.delivery_id, s.partition, q.state
FROM quarantine q JOIN streams s ON s.id = q.stream_id WHERE q.id = ANY(%(ids)s::bigint[]);

-- name: release
-- Mark quarantined records as released.
UPDATE quarantine SET state = 'released' WHERE id = ANY(%(ids)s::bigint[]);

-- name: drop
-- Mark waiting quarantined records as dropped.
UPDATE quarantine SET state = 'dropped' WHERE state = 'waiting' AND id = ANY(%(ids)s::bigint[]);
