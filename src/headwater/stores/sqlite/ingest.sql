-- name: differing_records
-- Of the emissions of one connection and type, given by their bodies: the places of those that have no record yet, and
-- the records of those that hold other content or came under another key. What is left out is as stored.
SELECT json_array(
    json(json_group_array(a.rowid) FILTER (WHERE r.source_id IS NULL)),
    json(json_group_array(json_array(
        r.source_id, r.sequence, r.latest, r.version, lower(hex(r.hash)), r.as_of, r.deleted, r.by_object))
        FILTER (WHERE r.source_id IS NOT NULL)))
FROM carray(:bodies) a
LEFT JOIN records r ON r.connection_id = :connection_id AND r.type_id = :type_id
    AND r.source_id = CAST(substr(a.value, 22, CAST(substr(a.value, 18, 4) AS INTEGER)) AS TEXT)
WHERE r.hash IS NOT substr(a.value, 1, 16) OR substr(a.value, 17, 1) <> x'31' OR r.deleted OR NOT r.by_object;

-- name: known_keys
-- The idempotency keys of one connection that were seen before, with the content they came with.
SELECT json_group_array(json_array(lower(hex(k.key)), lower(hex(k.hash)), k.deleted))
FROM carray(:keys) a
CROSS JOIN emission_keys k ON k.connection_id = :connection_id AND k.key = a.value;

-- name: numbers
-- The newest sequence ever given out, and the numbers of types and of connector versions; read anew in each transaction,
-- for another process may have written.
SELECT json_array(
    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'versions'), 0),
    json((SELECT json_group_object(name, id) FROM types WHERE name IN (SELECT value FROM json_each(:types)))),
    json((SELECT json_group_object(name, id) FROM connector_versions
        WHERE name IN (SELECT value FROM json_each(:connector_versions)))));

-- name: type_id
-- The number of a canonical type.
SELECT id FROM types WHERE name = :name;

-- name: insert_type
-- Number a canonical type.
INSERT INTO types (name) VALUES (:name) RETURNING id;

-- name: insert_connector_version
-- Number a connector version.
INSERT INTO connector_versions (name) VALUES (:name) RETURNING id;

-- name: stream_id
-- The row of a stream, of the asked partition if it has one.
SELECT id FROM streams WHERE connection_id = :connection_id AND key = :key
ORDER BY partition <> :partition, partition LIMIT 1;

-- name: insert_undeclared_stream
-- A row for emissions to a stream that no declaration has brought yet.
INSERT INTO streams (connection_id, key, partition, mode, timezone, declared, registered_at)
VALUES (:connection_id, :key, '', 'webhook', 'UTC', 0, :at) RETURNING id;

-- name: population
-- The live records of a connection's type.
SELECT live FROM populations WHERE connection_id = :connection_id AND type_id = :type_id;

-- name: version_contents
-- What earlier versions held.
SELECT json_group_array(json_array(v.sequence, lower(hex(v.hash)), v.deleted, v.as_of))
FROM json_each(:sequences) j JOIN versions v ON v.sequence = j.value;

-- name: insert_versions
-- Append versions from the sequence `first` on, in one step: the nth from the nth of the heads, which lie end to end
-- (see `version_head`), and the nth of the bodies.
INSERT INTO versions (sequence, origin_id, connection_id, type_id, stream_id, version, previous, as_of, deleted, stale,
    by_object, hash, source_id, payload)
SELECT :first + rowid - 1, CAST(substr(:heads, 100 * rowid - 99, 19) AS INTEGER),
    CAST(substr(:heads, 100 * rowid - 80, 10) AS INTEGER), CAST(substr(:heads, 100 * rowid - 70, 10) AS INTEGER),
    CAST(substr(:heads, 100 * rowid - 60, 10) AS INTEGER), CAST(substr(:heads, 100 * rowid - 50, 10) AS INTEGER),
    nullif(CAST(substr(:heads, 100 * rowid - 40, 19) AS INTEGER), 0),
    CAST(substr(:heads, 100 * rowid - 21, 19) AS INTEGER), CAST(substr(:heads, 100 * rowid - 2, 1) AS INTEGER),
    CAST(substr(:heads, 100 * rowid - 1, 1) AS INTEGER), CAST(substr(:heads, 100 * rowid, 1) AS INTEGER),
    substr(value, 1, 16), CAST(substr(value, 22, CAST(substr(value, 18, 4) AS INTEGER)) AS TEXT),
    substr(value, 22 + CAST(substr(value, 18, 4) AS INTEGER))
FROM carray(:bodies);

-- name: insert_records
-- The records of which the versions from `first` on are the first. OR FAIL, here and below: a statement that would take
-- itself back keeps what every page held before, and the transaction is taken back anyway.
INSERT OR FAIL INTO records
    (connection_id, type_id, source_id, sequence, latest, version, as_of, deleted, by_object, hash)
SELECT connection_id, type_id, source_id, iif(stale, 0, sequence), sequence, version, as_of, deleted, by_object, hash
FROM versions WHERE sequence >= :first AND version = 1
ORDER BY connection_id, type_id, source_id;

-- name: renew_records
-- Bring records up to the later versions from `first` on; one that arrived stale moves no more than `latest`.
INSERT INTO records (connection_id, type_id, source_id, sequence, latest, version, as_of, deleted, by_object, hash)
SELECT connection_id, type_id, source_id, iif(stale, 0, sequence), sequence, version, as_of, deleted, by_object, hash
FROM versions WHERE sequence >= :first AND version > 1
ORDER BY connection_id, type_id, source_id, sequence
ON CONFLICT (connection_id, type_id, source_id) DO UPDATE SET latest = excluded.latest, version = excluded.version,
    sequence = iif(excluded.sequence, excluded.sequence, records.sequence),
    as_of = iif(excluded.sequence, excluded.as_of, records.as_of),
    deleted = iif(excluded.sequence, excluded.deleted, records.deleted),
    by_object = iif(excluded.sequence, excluded.by_object, records.by_object),
    hash = iif(excluded.sequence, excluded.hash, records.hash);

-- name: observe_records
-- Known content was seen to hold at a newer instant.
UPDATE OR FAIL records SET as_of = max(records.as_of, j.at)
FROM (SELECT value ->> 0 AS connection_id, value ->> 1 AS type_id, value ->> 2 AS source_id, value ->> 3 AS at
    FROM json_each(:rows)) j
WHERE records.connection_id = j.connection_id AND records.type_id = j.type_id AND records.source_id = j.source_id;

-- name: insert_keys
-- Remember new idempotency keys with the content they came with, each packed as one blob (see `pack_key`).
INSERT OR FAIL INTO emission_keys (connection_id, deleted, delivery_id, key, hash)
SELECT CAST(substr(value, 1, 10) AS INTEGER), CAST(substr(value, 11, 1) AS INTEGER),
    nullif(CAST(substr(value, 12, 19) AS INTEGER), 0), substr(value, 31, 16), substr(value, 47, 16)
FROM carray(:packed);

-- name: renew_keys
-- Of known idempotency keys, the content they came with last.
UPDATE OR FAIL emission_keys SET hash = substr(a.value, 47, 16), deleted = CAST(substr(a.value, 11, 1) AS INTEGER),
    delivery_id = nullif(CAST(substr(a.value, 12, 19) AS INTEGER), 0)
FROM carray(:packed) a
WHERE connection_id = CAST(substr(a.value, 1, 10) AS INTEGER) AND key = substr(a.value, 31, 16);

-- name: insert_origins
-- Where ranges of versions came from, each packed as one blob (see `pack_origin`).
INSERT INTO origins (id, last_sequence, connection_id, run_id, page, delivery_id, connector_version_id, observed_at,
    origin)
SELECT CAST(substr(value, 1, 19) AS INTEGER), CAST(substr(value, 20, 19) AS INTEGER),
    CAST(substr(value, 39, 10) AS INTEGER), nullif(CAST(substr(value, 49, 19) AS INTEGER), 0),
    nullif(CAST(substr(value, 68, 10) AS INTEGER), 0), nullif(CAST(substr(value, 78, 19) AS INTEGER), 0),
    CAST(substr(value, 97, 10) AS INTEGER), CAST(substr(value, 107, 19) AS INTEGER), CAST(substr(value, 126) AS TEXT)
FROM carray(:packed);

-- name: move_populations
-- Count births and deaths of records.
INSERT INTO populations (connection_id, type_id, live)
SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(:rows) WHERE true
ON CONFLICT (connection_id, type_id) DO UPDATE SET live = live + excluded.live;

-- name: count_hours
-- Add to what streams did within their hour.
INSERT INTO stream_hours (stream_id, hour, created, updated, unchanged, duplicate, stale, deleted, quarantined,
    poll_changes, webhook_changes)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
    value ->> 8, value ->> 9, value ->> 10
FROM json_each(:rows) WHERE true
ON CONFLICT (stream_id, hour) DO UPDATE SET created = created + excluded.created, updated = updated + excluded.updated,
    unchanged = unchanged + excluded.unchanged, duplicate = duplicate + excluded.duplicate,
    stale = stale + excluded.stale, deleted = deleted + excluded.deleted,
    quarantined = quarantined + excluded.quarantined, poll_changes = poll_changes + excluded.poll_changes,
    webhook_changes = webhook_changes + excluded.webhook_changes;

-- name: note_records
-- The instant at which streams last had a record.
UPDATE streams SET last_record_at = max(coalesce(streams.last_record_at, j.at), j.at)
FROM (SELECT value ->> 0 AS id, value ->> 1 AS at FROM json_each(:rows)) j
WHERE streams.id = j.id;

-- name: set_aside
-- Quarantine one record; one that waits already is renewed.
INSERT INTO quarantine (connection_id, stream_id, type, source_id, idempotency_key, payload, reason, as_of, created_at,
    run_id, page, delivery_id)
VALUES (:connection_id, :stream_id, :type, :source_id, :idempotency_key, :payload, :reason, :as_of, :created_at,
    :run_id, :page, :delivery_id)
ON CONFLICT (stream_id, type, idempotency_key) WHERE state = 'waiting' DO UPDATE SET payload = excluded.payload,
    reason = excluded.reason, as_of = excluded.as_of, source_id = excluded.source_id, run_id = excluded.run_id,
    page = excluded.page, delivery_id = excluded.delivery_id;
