-- name: guards
-- What decides whether pages of these runs may commit, and where the runs stand.
SELECT json_group_array(json_object('run_id', r.id, 'state', r.state, 'epoch', r.epoch,
    'epoch_now', CASE WHEN r.window_id IS NULL THEN s.epoch ELSE w.epoch END, 'pages', r.pages,
    'live_deleted', r.live_deleted, 'requests', r.requests))
FROM json_each(:run_ids) j
JOIN runs r ON r.id = j.value
JOIN streams s ON s.id = r.stream_id
LEFT JOIN windows w ON w.id = r.window_id;

-- name: insert_pages
-- The pages of runs, with what they came to.
INSERT INTO pages (run_id, number, cursor, has_more, created, updated, unchanged, duplicate, stale, deleted,
    quarantined, started_at, committed_at)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
    value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12
FROM json_each(:rows);

-- name: advance_runs
-- Add committed pages to their runs and extend the leases.
UPDATE runs SET pages = j.pages, cursor_after = j.cursor, has_more = j.has_more, lease_until = j.lease_until,
    connector_version = j.connector_version, started_at = coalesce(runs.started_at, j.started_at),
    live_deleted = runs.live_deleted + j.live_deleted, created = runs.created + j.created, updated = runs.updated + j.updated,
    unchanged = runs.unchanged + j.unchanged, duplicate = runs.duplicate + j.duplicate, stale = runs.stale + j.stale,
    deleted = runs.deleted + j.deleted, quarantined = runs.quarantined + j.quarantined
FROM (
    SELECT value ->> 0 AS id, value ->> 1 AS pages, value ->> 2 AS cursor, value ->> 3 AS has_more,
        value ->> 4 AS lease_until, value ->> 5 AS connector_version, value ->> 6 AS started_at,
        value ->> 7 AS live_deleted, value ->> 8 AS created, value ->> 9 AS updated, value ->> 10 AS unchanged,
        value ->> 11 AS duplicate, value ->> 12 AS stale, value ->> 13 AS deleted, value ->> 14 AS quarantined
    FROM json_each(:rows)
) j
WHERE runs.id = j.id;

-- name: advance_streams
-- Move the checkpoints of streams; their instants do not go back with a clock that is put right.
UPDATE streams SET cursor = j.cursor, checkpoint_at = max(coalesce(checkpoint_at, j.at), j.at)
FROM (SELECT value ->> 0 AS id, value ->> 1 AS cursor, value ->> 2 AS at FROM json_each(:rows)) j
WHERE streams.id = j.id;

-- name: advance_windows
-- Move the checkpoints of windows and add what the pages came to.
UPDATE windows SET cursor = j.cursor, checkpoint_at = j.at, pages = windows.pages + j.pages, created = windows.created + j.created,
    updated = windows.updated + j.updated, unchanged = windows.unchanged + j.unchanged, duplicate = windows.duplicate + j.duplicate,
    stale = windows.stale + j.stale, deleted = windows.deleted + j.deleted, quarantined = windows.quarantined + j.quarantined
FROM (
    SELECT value ->> 0 AS id, value ->> 1 AS cursor, value ->> 2 AS at, value ->> 3 AS pages, value ->> 4 AS created,
        value ->> 5 AS updated, value ->> 6 AS unchanged, value ->> 7 AS duplicate, value ->> 8 AS stale,
        value ->> 9 AS deleted, value ->> 10 AS quarantined
    FROM json_each(:rows)
) j
WHERE windows.id = j.id;

-- name: insert_requests
-- What runs asked of their providers.
INSERT INTO requests (run_id, number, at, method, url, status, milliseconds, retries, note)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
    value ->> 8
FROM json_each(:rows);

-- name: count_requests
-- Note how many requests runs have made.
UPDATE runs SET requests = j.requests
FROM (SELECT value ->> 0 AS id, value ->> 1 AS requests FROM json_each(:rows)) j
WHERE runs.id = j.id;

-- name: forget_requests
-- Keep the newest requests of a run only.
DELETE FROM requests WHERE run_id = :run_id AND number <= :number;
