-- name: type_numbers
-- The numbers of canonical types.
SELECT name, id FROM types WHERE name = ANY(%(names)s::text[]);

-- name: insert_types
-- Number canonical types, in order, so that two that number the same wait for each other once.
INSERT INTO types (name) SELECT name FROM unnest(%(names)s::text[]) AS j (name) ORDER BY name
ON CONFLICT DO NOTHING;

-- name: connector_version_numbers
-- The numbers of connector versions.
SELECT name, id FROM connector_versions WHERE name = ANY(%(names)s::text[]);

-- name: insert_connector_versions
-- Number connector versions, in order.
INSERT INTO connector_versions (name) SELECT name FROM unnest(%(names)s::text[]) AS j (name) ORDER BY name
ON CONFLICT DO NOTHING;

-- name: known_records
-- The records that are asked for, each by its key alone: the planner is left no other way, however the tables grow.
-- With them the newest version where it is stale, to tell an old page that comes again.
SELECT a.place, r.*, l.hash AS latest_hash, l.as_of AS latest_as_of, l.deleted AS latest_deleted
FROM unnest(%(connection_ids)s::bigint[], %(type_ids)s::integer[], %(source_ids)s::text[])
    WITH ORDINALITY AS a (connection_id, type_id, source_id, place)
CROSS JOIN LATERAL (
    SELECT sequence, latest, version, hash, as_of, deleted, by_object FROM records
    WHERE connection_id = a.connection_id AND type_id = a.type_id AND source_id = a.source_id LIMIT 1
) r
LEFT JOIN LATERAL (
    SELECT hash, as_of, deleted FROM versions v WHERE r.latest <> r.sequence AND v.sequence = r.latest LIMIT 1
) l ON true;

-- name: known_keys
-- The idempotency keys that were seen before, with the content that they came with.
SELECT a.place, k.* FROM unnest(%(connection_ids)s::bigint[], %(keys)s::bytea[])
    WITH ORDINALITY AS a (connection_id, key, place)
CROSS JOIN LATERAL (
    SELECT hash, deleted FROM emission_keys WHERE connection_id = a.connection_id AND key = a.key LIMIT 1
) k;

-- name: live_records
-- How many live records there are of types of connections.
SELECT connection_id, type_id, live FROM populations
WHERE connection_id = ANY(%(connection_ids)s::bigint[]) AND type_id = ANY(%(type_ids)s::integer[]);

-- name: stream_ids
-- The rows of streams, of the asked partition if it has one.
SELECT a.place, s.id FROM unnest(%(connection_ids)s::bigint[], %(keys)s::text[], %(partitions)s::text[])
    WITH ORDINALITY AS a (connection_id, key, partition, place)
CROSS JOIN LATERAL (
    SELECT id FROM streams WHERE connection_id = a.connection_id AND key = a.key
    ORDER BY partition <> a.partition, partition LIMIT 1
) s;

-- name: insert_undeclared_stream
-- A row for emissions to a stream that no declaration has brought yet.
INSERT INTO streams (connection_id, key, partition, mode, timezone, declared, registered_at)
VALUES (%(connection_id)s, %(key)s, '', 'webhook', 'UTC', false, %(at)s) RETURNING id;

-- name: take_sequences
-- Sequences for new versions, ascending; the feed waits for this transaction from the first of them on.
SELECT take_sequences(%(wanted)s);

-- name: copy_versions
-- Append versions.
COPY versions (sequence, origin_id, connection_id, type_id, stream_id, source_id, version, deleted, stale, previous,
    as_of, hash, payload) FROM STDIN (FORMAT BINARY)

-- name: upsert_records
-- Bring the current records up to date.
INSERT INTO records (connection_id, type_id, source_id, sequence, latest, version, hash, as_of, deleted, by_object)
SELECT * FROM unnest(%(connection_ids)s::bigint[], %(type_ids)s::integer[], %(source_ids)s::text[],
    %(sequences)s::bigint[], %(latests)s::bigint[], %(versions)s::integer[], %(hashes)s::bytea[], %(as_ofs)s::bigint[],
    %(deleted)s::boolean[], %(by_object)s::boolean[])
ON CONFLICT (connection_id, type_id, source_id) DO UPDATE SET sequence = excluded.sequence, latest = excluded.latest,
    version = excluded.version, hash = excluded.hash, as_of = excluded.as_of, deleted = excluded.deleted,
    by_object = excluded.by_object;

-- name: upsert_keys
-- Remember idempotency keys with the content they came with.
INSERT INTO emission_keys (connection_id, key, hash, deleted, delivery_id)
SELECT * FROM unnest(%(connection_ids)s::bigint[], %(keys)s::bytea[], %(hashes)s::bytea[], %(deleted)s::boolean[],
    %(delivery_ids)s::bigint[])
ON CONFLICT (connection_id, key) DO UPDATE SET hash = excluded.hash, deleted = excluded.deleted,
    delivery_id = excluded.delivery_id;

-- name: insert_origins
-- Where ranges of versions came from.
INSERT INTO origins (id, last_sequence, connection_id, origin, run_id, page, delivery_id, connector_version_id,
    observed_at)
SELECT * FROM json_to_recordset(%(rows)s::json) AS j (id bigint, last_sequence bigint, connection_id bigint,
    origin text, run_id bigint, page bigint, delivery_id bigint, connector_version_id integer, observed_at bigint);

-- name: move_populations
-- Count births and deaths of records.
INSERT INTO populations (connection_id, type_id, live)
SELECT * FROM unnest(%(connection_ids)s::bigint[], %(type_ids)s::integer[], %(births)s::bigint[])
ON CONFLICT (connection_id, type_id) DO UPDATE SET live = populations.live + excluded.live;

-- name: count_hours
-- Add to what streams did within their hour.
INSERT INTO stream_hours (stream_id, hour, created, updated, unchanged, duplicate, stale, deleted, quarantined,
    poll_changes, webhook_changes)
SELECT * FROM json_to_recordset(%(rows)s::json) AS j (stream_id bigint, hour bigint, created bigint, updated bigint,
    unchanged bigint, duplicate bigint, stale bigint, deleted bigint, quarantined bigint, poll_changes bigint,
    webhook_changes bigint)
ON CONFLICT (stream_id, hour) DO UPDATE SET created = stream_hours.created + excluded.created,
    updated = stream_hours.updated + excluded.updated, unchanged = stream_hours.unchanged + excluded.unchanged,
    duplicate = stream_hours.duplicate + excluded.duplicate, stale = stream_hours.stale + excluded.stale,
    deleted = stream_hours.deleted + excluded.deleted, quarantined = stream_hours.quarantined + excluded.quarantined,
    poll_changes = stream_hours.poll_changes + excluded.poll_changes,
    webhook_changes = stream_hours.webhook_changes + excluded.webhook_changes;

-- name: note_records
-- The instant at which streams last had a record.
UPDATE streams SET last_record_at = greatest(streams.last_record_at, j.at)
FROM unnest(%(ids)s::bigint[], %(ats)s::bigint[]) AS j (id, at) WHERE streams.id = j.id;

-- name: set_aside
-- Quarantine one record; one that waits already is renewed.
INSERT INTO quarantine (connection_id, stream_id, type, source_id, idempotency_key, payload, reason, as_of, created_at,
    run_id, page, delivery_id)
VALUES (%(connection_id)s, %(stream_id)s, %(type)s, %(source_id)s, %(idempotency_key)s, %(payload)s, %(reason)s,
    %(as_of)s, %(created_at)s, %(run_id)s, %(page)s, %(delivery_id)s)
ON CONFLICT (stream_id, type, md5(idempotency_key)) WHERE state = 'waiting' DO UPDATE SET payload = excluded.payload,
    reason = excluded.reason, as_of = excluded.as_of, source_id = excluded.source_id, run_id = excluded.run_id,
    page = excluded.page, delivery_id = excluded.delivery_id;
