-- name: guards
-- What decides whether pages of these runs may commit, and where the runs stand.
SELECT r.id AS run_id, r.state, r.epoch, CASE WHEN r.window_id IS NULL THEN s.epoch ELSE w.epoch END AS epoch_now,
    r.pages, r.live_deleted, r.requests
FROM runs r
JOIN streams s ON s.id = r.stream_id
LEFT JOIN windows w ON w.id = r.window_id
WHERE r.id = ANY(%(run_ids)s::bigint[]);

-- name: insert_pages
-- The pages of runs, with what they came to.
INSERT INTO pages (run_id, number, cursor, has_more, created, updated, unchanged, duplicate, stale, deleted,
    quarantined, started_at, committed_at)
SELECT * FROM json_to_recordset(%(rows)s::json) AS j (run_id bigint, number bigint, cursor text, has_more boolean,
    created bigint, updated bigint, unchanged bigint, duplicate bigint, stale bigint, deleted bigint,
    quarantined bigint, started_at bigint, committed_at bigint);

-- name: advance_runs
-- Add committed pages to their runs and extend the leases.
UPDATE runs SET pages = j.number, cursor_after = j.cursor, has_more = j.has_more, lease_until = j.lease_until,
    connector_version = j.connector_version, started_at = coalesce(runs.started_at, j.started_at),
    live_deleted = runs.live_deleted + j.live_deleted, created = runs.created + j.created,
    updated = runs.updated + j.updated, unchanged = runs.unchanged + j.unchanged,
    duplicate = runs.duplicate + j.duplicate, stale = runs.stale + j.stale, deleted = runs.deleted + j.deleted,
    quarantined = runs.quarantined + j.quarantined
FROM json_to_recordset(%(rows)s::json) AS j (run_id bigint, number bigint, cursor text, has_more boolean,
    lease_until bigint, connector_version text, started_at bigint, live_deleted bigint, created bigint,
    updated bigint, unchanged bigint, duplicate bigint, stale bigint, deleted bigint, quarantined bigint)
WHERE runs.id = j.run_id;

-- name: advance_streams
-- Move the checkpoints of streams; their instants do not go back with a clock that is put right.
UPDATE streams SET cursor = j.cursor, checkpoint_at = greatest(checkpoint_at, j.at)
FROM json_to_recordset(%(rows)s::json) AS j (id bigint, cursor text, at bigint)
WHERE streams.id = j.id;

-- name: advance_windows
-- Move the checkpoints of windows and add what the pages came to.
UPDATE windows SET cursor = j.cursor, checkpoint_at = j.at, pages = windows.pages + j.pages,
    created = windows.created + j.created, updated = windows.updated + j.updated,
    unchanged = windows.unchanged + j.unchanged, duplicate = windows.duplicate + j.duplicate,
    stale = windows.stale + j.stale, deleted = windows.deleted + j.deleted,
    quarantined = windows.quarantined + j.quarantined
FROM json_to_recordset(%(rows)s::json) AS j (id bigint, cursor text, at bigint, pages bigint, created bigint,
    updated bigint, unchanged bigint, duplicate bigint, stale bigint, deleted bigint, quarantined bigint)
WHERE windows.id = j.id;

-- name: insert_requests
-- What runs asked of their providers.
INSERT INTO requests (run_id, number, at, method, url, status, milliseconds, retries, note)
SELECT * FROM json_to_recordset(%(rows)s::json) AS j (run_id bigint, number bigint, at bigint, method text, url text,
    status integer, milliseconds bigint, retries integer, note text);

-- name: count_requests
-- Note how many requests a run has made.
UPDATE runs SET requests = %(requests)s WHERE id = %(run_id)s;

-- name: forget_requests
-- Keep the newest requests of a run only.
DELETE FROM requests WHERE run_id = %(run_id)s AND number <= %(number)s;
