-- name: missing_days
-- The days that have no partition yet. Asked of the catalogue as a table: a session may remember for a while that a
-- name was free.
SELECT day FROM unnest(%(days)s::bigint[]) AS j (day)
WHERE NOT EXISTS (
    SELECT 1 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'deliveries'::regclass AND c.relname = 'deliveries_' || day)
ORDER BY day;

-- name: one_partition_maker
-- Two nodes that make a day's partition do so one after the other.
SELECT pg_advisory_xact_lock(5252, 3);

-- name: append
-- Store deliveries whose dedupe keys are new, and count them; what became of each. Nothing is stored, and nothing told,
-- where a connection is gone. One statement: what is stored of a delivery comes and goes with its key (Invariant 3).
-- Keys, hours and arrivals are taken in order, so that two that bring the same wait for each other once.
WITH home AS MATERIALIZED (
    SELECT id FROM connections WHERE id = ANY(%(homes)b::bigint[]) ORDER BY id FOR KEY SHARE
),
given AS MATERIALIZED (
    SELECT j.*, convert_to(j.provider_id, 'UTF8') AS dedupe, j.first_id + nextval('delivery_number') AS id
    FROM unnest(%(connection_ids)b::bigint[], %(provider_ids)b::text[], %(event_types)b::text[],
        %(received_ats)b::bigint[], %(hours)b::bigint[], %(first_ids)b::bigint[], %(headers)b::bytea[],
        %(bodies)b::bytea[]) WITH ORDINALITY
        AS j (connection_id, provider_id, event_type, received_at, hour, first_id, headers, body, place)
    WHERE (SELECT count(*) FROM home) = cardinality(%(homes)b::bigint[])
),
remembered AS (
    INSERT INTO dedupes (connection_id, dedupe, delivery_id)
    SELECT connection_id, dedupe, id FROM given ORDER BY connection_id, dedupe, place
    ON CONFLICT DO NOTHING RETURNING delivery_id
),
fresh AS (SELECT g.* FROM given g JOIN remembered r ON r.delivery_id = g.id),
stored AS (
    INSERT INTO deliveries (id, connection_id, dedupe, provider_id, event_type, received_at, due_at, body_bytes)
    SELECT id, connection_id, dedupe, provider_id, event_type, received_at, received_at, length(body) FROM fresh
),
contents AS (INSERT INTO bodies (delivery_id, headers, body) SELECT id, headers, body FROM fresh),
figures AS (
    INSERT INTO connection_hours (connection_id, hour, deliveries)
    SELECT connection_id, hour, count(*) FROM fresh GROUP BY connection_id, hour ORDER BY connection_id, hour
    ON CONFLICT (connection_id, hour) DO UPDATE SET deliveries = connection_hours.deliveries + excluded.deliveries
),
last AS (
    INSERT INTO arrivals (connection_id, last_at)
    SELECT connection_id, max(received_at) FROM given GROUP BY connection_id ORDER BY connection_id
    ON CONFLICT (connection_id) DO UPDATE SET last_at = greatest(arrivals.last_at, excluded.last_at)
)
SELECT g.place, g.id, r.delivery_id IS NOT NULL AS is_fresh
FROM given g LEFT JOIN remembered r ON r.delivery_id = g.id ORDER BY g.place;

-- name: known
-- The deliveries that have these dedupe keys, in that order.
SELECT d.delivery_id
FROM unnest(%(connection_ids)s::bigint[], %(provider_ids)s::text[]) WITH ORDINALITY AS a (connection_id, provider_id, place)
CROSS JOIN LATERAL (
    SELECT delivery_id FROM dedupes
    WHERE connection_id = a.connection_id AND dedupe = convert_to(a.provider_id, 'UTF8') LIMIT 1
) d
ORDER BY a.place;

-- name: hold
-- Hold deliveries, lowest id first; how their claims stand now.
SELECT id, state, epoch FROM deliveries WHERE id = ANY(%(ids)s::bigint[]) ORDER BY id FOR NO KEY UPDATE;

-- name: count_duplicates
-- Later arrivals of deliveries that are held.
UPDATE deliveries SET duplicates = deliveries.duplicates + j.n,
    last_duplicate_at = greatest(deliveries.last_duplicate_at, j.at)
FROM unnest(%(ids)s::bigint[], %(counts)s::bigint[], %(ats)s::bigint[]) AS j (id, n, at)
WHERE deliveries.id = j.id AND deliveries.id = ANY(%(ids)s::bigint[]);

-- name: reject
-- Count a refused request and keep its sample.
INSERT INTO rejections (connection_id, hour, reason, count, last_at, sample)
VALUES (%(connection_id)s, %(hour)s, %(reason)s, 1, %(at)s, %(sample)s)
ON CONFLICT (connection_id, hour, reason) DO UPDATE SET count = rejections.count + 1, last_at = excluded.last_at,
    sample = excluded.sample;

-- name: rejections
-- Refused requests.
SELECT r.*, c.key AS connection_key FROM rejections r JOIN connections c ON c.id = r.connection_id
WHERE (%(connection)s::text IS NULL OR c.key = %(connection)s)
ORDER BY r.hour DESC, r.last_at DESC, c.key, r.reason COLLATE "C" LIMIT %(limit)s;

-- name: one_claim_at_a_time
-- Claims of all nodes follow each other: two would choose the same deliveries, and one of them leave with nothing.
SELECT pg_advisory_xact_lock(5252, 4);

-- name: claimable
-- Due deliveries that nobody holds, with the sizes of their bodies: connections in turn, the oldest of each first; of an
-- ordered one, its oldest alone.
-- The connections that have any are found by stepping through the index from one to the next.
WITH RECURSIVE waiting (connection_id) AS (
    (SELECT connection_id FROM deliveries WHERE state = 'pending' ORDER BY connection_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.connection_id FROM deliveries d
        WHERE d.state = 'pending' AND d.connection_id > w.connection_id ORDER BY d.connection_id LIMIT 1)
    FROM waiting w WHERE w.connection_id IS NOT NULL
)
SELECT d.id, d.body_bytes FROM waiting w
JOIN connections c ON c.id = w.connection_id AND c.paused_at IS NULL
CROSS JOIN LATERAL (
    SELECT ready.id, ready.body_bytes, row_number() OVER (ORDER BY ready.ready_at, ready.id) AS place FROM (
        SELECT d.id, d.body_bytes, d.ready_at FROM deliveries d
        WHERE d.connection_id = c.id AND d.state = 'pending' AND d.ready_at <= %(at)s
            AND (c.id <> ALL(%(ordered)s::bigint[]) OR NOT EXISTS (
                SELECT 1 FROM deliveries older
                WHERE older.connection_id = c.id AND older.state = 'pending' AND older.id < d.id))
        ORDER BY d.ready_at, d.id LIMIT %(limit)s
    ) ready
) d
ORDER BY d.place, d.id LIMIT %(limit)s;

-- name: claim
-- Hand deliveries to one attempt; one whose row is held at this moment is left for the next claim.
UPDATE deliveries SET epoch = epoch + 1, attempts = attempts + 1, lease_until = %(lease_until)s
WHERE id = ANY(%(ids)s::bigint[]) AND id IN (
    SELECT id FROM deliveries WHERE id = ANY(%(ids)s::bigint[]) AND state = 'pending' AND ready_at <= %(at)s
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
RETURNING id;

-- name: claimed
-- Claimed deliveries with headers and body.
SELECT d.id, d.connection_id, d.provider_id, d.event_type, d.received_at, b.headers, b.body, d.attempts, d.epoch
FROM deliveries d JOIN bodies b ON b.delivery_id = d.id
WHERE d.id = ANY(%(ids)s::bigint[]) AND b.delivery_id = ANY(%(ids)s::bigint[]) ORDER BY d.id;

-- name: finish
-- Deliveries that are done, with what they came to.
UPDATE deliveries SET state = 'done', ignored = j.ignored, finished_at = j.at, due_at = NULL, lease_until = NULL,
    error_code = NULL, error = NULL, traceback = NULL, created = j.created, updated = j.updated,
    unchanged = j.unchanged, duplicate = j.duplicate, stale = j.stale, deleted = j.deleted, quarantined = j.quarantined
FROM json_to_recordset(%(rows)s::json) AS j (id bigint, ignored boolean, at bigint, created bigint, updated bigint,
    unchanged bigint, duplicate bigint, stale bigint, deleted bigint, quarantined bigint)
WHERE deliveries.id = j.id AND deliveries.id = ANY(%(ids)s::bigint[]);

-- name: succeed_streams
-- Webhook streams are as fresh as their connection's last dispatched delivery.
UPDATE streams SET last_attempt_at = greatest(streams.last_attempt_at, j.at),
    last_success_at = greatest(streams.last_success_at, j.at), last_error = NULL, last_error_code = NULL,
    consecutive_failures = 0
FROM unnest(%(connection_ids)s::bigint[], %(ats)s::bigint[]) AS j (id, at)
WHERE streams.connection_id = j.id AND streams.mode = 'webhook' AND streams.declared;

-- name: fail_streams
-- The webhook streams of a connection whose delivery failed.
UPDATE streams SET last_attempt_at = %(at)s, last_error = %(error)s, last_error_code = %(error_code)s,
    consecutive_failures = consecutive_failures + %(failures)s
WHERE connection_id = %(connection_id)s AND mode = 'webhook' AND declared;

-- name: fail
-- A failed attempt: pending again, later, or dead.
UPDATE deliveries SET state = %(state)s, due_at = %(due_at)s, lease_until = NULL, finished_at = %(finished_at)s,
    error_code = %(error_code)s, error = %(error)s, traceback = %(traceback)s
WHERE id = %(id)s;

-- name: matching
-- The deliveries of a filter; its conditions follow.
FROM deliveries d JOIN connections c ON c.id = d.connection_id WHERE true

-- name: replay
-- Deliveries are pending again at once, with a new budget of attempts; one that is claimed now goes on.
UPDATE deliveries SET replayed_at = %(at)s,
    replayed_from = CASE WHEN state = 'pending' THEN replayed_from WHEN ignored THEN 'ignored' ELSE state END,
    due_at = %(at)s, attempts = CASE WHEN state = 'pending' THEN attempts ELSE 0 END,
    finished_at = NULL, ignored = false, lease_until = CASE WHEN state = 'pending' THEN lease_until END,
    state = 'pending', error_code = NULL, error = NULL, traceback = NULL
WHERE id IN

-- name: cancel_replay
-- Replayed deliveries that still wait are again what they were; one that is claimed now goes on.
UPDATE deliveries SET state = CASE WHEN replayed_from = 'dead' THEN 'dead' ELSE 'done' END,
    ignored = replayed_from = 'ignored', due_at = NULL, lease_until = NULL, finished_at = %(at)s,
    error_code = CASE WHEN replayed_from = 'dead' THEN %(error_code)s END,
    error = CASE WHEN replayed_from = 'dead' THEN %(error)s END, traceback = NULL
WHERE replayed_from IS NOT NULL AND coalesce(lease_until, 0) <= %(at)s AND id IN

-- name: columns
-- Deliveries as they are listed.
SELECT d.*, c.key AS connection_key, c.connector

-- name: body
-- Headers and body of a delivery.
SELECT headers, body FROM bodies WHERE delivery_id = %(delivery_id)s;

-- name: pending
-- How many wait.
SELECT count(*) FROM deliveries WHERE state = 'pending';
