-- name: known
-- The ids of deliveries, each as its connection and its provider's id name it, in that order.
SELECT json_group_array(d.id ORDER BY a.key)
FROM json_each(:rows) a
CROSS JOIN deliveries d ON d.connection_id = a.value ->> 0 AND d.dedupe = CAST(a.value ->> 1 AS BLOB);

-- name: insert
-- Store deliveries whose dedupe keys are new, apart from their bodies.
INSERT INTO deliveries (connection_id, dedupe, provider_id, event_type, received_at, due_at, body_bytes)
SELECT value ->> 0, CAST(value ->> 1 AS BLOB), value ->> 1, value ->> 2, value ->> 3, value ->> 3, value ->> 4
FROM json_each(:rows) WHERE true ON CONFLICT (connection_id, dedupe) DO NOTHING;

-- name: insert_bodies
-- Headers and bodies, each packed as one blob (see `pack_body`), in one step.
INSERT INTO bodies (delivery_id, headers, body)
SELECT CAST(substr(value, 1, 19) AS INTEGER), substr(value, 30, CAST(substr(value, 20, 10) AS INTEGER)),
    substr(value, 30 + CAST(substr(value, 20, 10) AS INTEGER))
FROM carray(:packed);

-- name: count_duplicates
-- Later arrivals of known deliveries.
UPDATE deliveries SET duplicates = deliveries.duplicates + j.n, last_duplicate_at = max(coalesce(deliveries.last_duplicate_at, 0), j.at)
FROM (SELECT value ->> 0 AS id, value ->> 1 AS n, value ->> 2 AS at FROM json_each(:rows)) j
WHERE deliveries.id = j.id;

-- name: count_arrivals
-- New deliveries in the figures of their connection's hour.
INSERT INTO connection_hours (connection_id, hour, deliveries)
SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(:rows) WHERE true
ON CONFLICT (connection_id, hour) DO UPDATE SET deliveries = deliveries + excluded.deliveries;

-- name: note_arrivals
-- The instant of the last delivery of connections, duplicates included.
UPDATE connections SET last_delivery_at = max(coalesce(connections.last_delivery_at, 0), j.at)
FROM (SELECT value ->> 0 AS id, value ->> 1 AS at FROM json_each(:rows)) j
WHERE connections.id = j.id;

-- name: reject
-- Count a refused request and keep its sample.
INSERT INTO rejections (connection_id, hour, reason, count, last_at, sample)
VALUES (:connection_id, :hour, :reason, 1, :at, :sample)
ON CONFLICT (connection_id, hour, reason) DO UPDATE SET count = count + 1, last_at = excluded.last_at,
    sample = excluded.sample;

-- name: rejections
-- Refused requests.
SELECT r.*, c.key AS connection_key FROM rejections r JOIN connections c ON c.id = r.connection_id
WHERE (:connection IS NULL OR c.key = :connection)
ORDER BY r.hour DESC, r.last_at DESC, c.key, r.reason LIMIT :limit;

-- name: claimable
-- Due deliveries that nobody holds, with the sizes of their bodies: connections in turn, the oldest of each first; of an
-- ordered one, its oldest alone.
SELECT json_group_array(json(found)) FROM (
    SELECT j.value AS found FROM connections c, json_each((
        SELECT json_group_array(json_array(id, body_bytes)) FROM (
            SELECT d.id, d.body_bytes FROM deliveries d INDEXED BY deliveries_ready
            WHERE d.connection_id = c.id AND d.state = 'pending' AND d.ready_at <= :at
                AND (c.id NOT IN (SELECT value FROM json_each(:ordered)) OR NOT EXISTS (
                    SELECT 1 FROM deliveries older INDEXED BY deliveries_waiting
                    WHERE older.connection_id = c.id AND older.state = 'pending' AND older.id < d.id))
            ORDER BY d.ready_at, d.id LIMIT :limit)
    )) j
    WHERE c.paused_at IS NULL
    ORDER BY j.key, j.value ->> 0 LIMIT :limit
);

-- name: claim
-- Hand deliveries to one attempt.
UPDATE deliveries SET epoch = epoch + 1, attempts = attempts + 1, lease_until = :lease_until
WHERE id IN (SELECT value FROM json_each(:ids));

-- name: claimed
-- Claimed deliveries with their headers, and their bodies end to end, in the same order.
SELECT json_group_array(json_array(d.id, d.connection_id, d.provider_id, d.event_type, d.received_at, d.attempts, d.epoch,
        json(CAST(b.headers AS TEXT)), length(b.body))),
    CAST(group_concat(CAST(b.body AS TEXT), '') AS BLOB)
FROM json_each(:ids) j CROSS JOIN deliveries d ON d.id = j.value CROSS JOIN bodies b ON b.delivery_id = d.id;

-- name: claims
-- How claims stand now.
SELECT json_group_array(json_array(d.id, d.state, d.epoch)) FROM json_each(:ids) j JOIN deliveries d ON d.id = j.value;

-- name: finish
-- Deliveries that are done, with what they came to, each packed as one blob (see `pack_finished`).
UPDATE OR FAIL deliveries SET state = 'done', ignored = j.ignored, finished_at = j.at, due_at = NULL, lease_until = NULL,
    error_code = NULL, error = NULL, traceback = NULL, created = j.created, updated = j.updated,
    unchanged = j.unchanged, duplicate = j.duplicate, stale = j.stale, deleted = j.deleted, quarantined = j.quarantined
FROM (
    SELECT CAST(substr(value, 1, 19) AS INTEGER) AS id, CAST(substr(value, 20, 1) AS INTEGER) AS ignored,
        CAST(substr(value, 21, 19) AS INTEGER) AS at, CAST(substr(value, 40, 10) AS INTEGER) AS created,
        CAST(substr(value, 50, 10) AS INTEGER) AS updated, CAST(substr(value, 60, 10) AS INTEGER) AS unchanged,
        CAST(substr(value, 70, 10) AS INTEGER) AS duplicate, CAST(substr(value, 80, 10) AS INTEGER) AS stale,
        CAST(substr(value, 90, 10) AS INTEGER) AS deleted, CAST(substr(value, 100, 10) AS INTEGER) AS quarantined
    FROM carray(:packed)
) j
WHERE deliveries.id = j.id;

-- name: succeed_streams
-- Webhook streams are as fresh as their connection's last dispatched delivery.
UPDATE streams SET last_attempt_at = max(coalesce(streams.last_attempt_at, j.at), j.at),
    last_success_at = max(coalesce(streams.last_success_at, j.at), j.at), last_error = NULL, last_error_code = NULL,
    consecutive_failures = 0
FROM (SELECT value ->> 0 AS id, value ->> 1 AS at FROM json_each(:rows)) j
WHERE streams.connection_id = j.id AND streams.mode = 'webhook' AND streams.declared = 1;

-- name: fail_streams
-- The webhook streams of a connection whose delivery failed.
UPDATE streams SET last_attempt_at = :at, last_error = :error, last_error_code = :error_code,
    consecutive_failures = consecutive_failures + :failures
WHERE connection_id = :connection_id AND mode = 'webhook' AND declared = 1;

-- name: fail
-- A failed attempt: pending again, later, or dead.
UPDATE deliveries SET state = :state, due_at = :due_at, lease_until = NULL, finished_at = :finished_at,
    error_code = :error_code, error = :error, traceback = :traceback
WHERE id = :id;

-- name: matching
-- The deliveries of a filter; its conditions follow.
FROM deliveries d JOIN connections c ON c.id = d.connection_id WHERE true

-- name: replay
-- Deliveries are pending again at once, with a new budget of attempts; one that is claimed now goes on.
UPDATE deliveries SET replayed_at = :at,
    replayed_from = iif(state = 'pending', replayed_from, iif(ignored = 1, 'ignored', state)), due_at = :at, attempts = iif(state = 'pending', attempts, 0), finished_at = NULL, ignored = 0,
    lease_until = iif(state = 'pending', lease_until, NULL), state = 'pending', error_code = NULL, error = NULL,
    traceback = NULL
WHERE id IN

-- name: cancel_replay
-- Replayed deliveries that still wait are again what they were; one that is claimed now goes on.
UPDATE deliveries SET state = iif(replayed_from = 'dead', 'dead', 'done'), ignored = replayed_from = 'ignored',
    due_at = NULL, lease_until = NULL, finished_at = :at, error_code = iif(replayed_from = 'dead', :error_code, NULL),
    error = iif(replayed_from = 'dead', :error, NULL), traceback = NULL
WHERE replayed_from IS NOT NULL AND coalesce(lease_until, 0) <= :at AND id IN

-- name: columns
-- Deliveries as they are listed.
SELECT d.*, c.key AS connection_key, c.connector

-- name: body
-- Headers and body of a delivery.
SELECT headers, body FROM bodies WHERE delivery_id = :delivery_id;

-- name: pending
-- How many wait.
SELECT count(*) FROM deliveries WHERE state = 'pending';
