-- name: insert
-- Store a backfill.
INSERT INTO backfills (stream_id, span_start, span_end, state, created_at)
VALUES (:stream_id, :span_start, :span_end, 'running', :at) RETURNING id;

-- name: insert_windows
-- Its windows, all to do.
INSERT INTO windows (backfill_id, window_start, window_end)
SELECT :backfill_id, value ->> 0, value ->> 1 FROM json_each(:rows) ORDER BY value ->> 0;

-- name: list
-- Backfills with what their windows came to; a condition and an order follow.
SELECT b.*, c.key AS connection_key, s.key AS stream_key, s.partition,
    w.todo, w.running, w.done, w.failed, w.cancelled, w.pages, w.created, w.updated, w.unchanged, w.duplicate, w.stale,
    w.deleted, w.quarantined
FROM backfills b
JOIN streams s ON s.id = b.stream_id
JOIN connections c ON c.id = s.connection_id
LEFT JOIN (
    SELECT backfill_id, sum(state = 'todo') AS todo, sum(state = 'running') AS running, sum(state = 'done') AS done,
        sum(state = 'failed') AS failed, sum(state = 'cancelled') AS cancelled, sum(pages) AS pages,
        sum(created) AS created, sum(updated) AS updated, sum(unchanged) AS unchanged, sum(duplicate) AS duplicate,
        sum(stale) AS stale, sum(deleted) AS deleted, sum(quarantined) AS quarantined
    FROM windows GROUP BY backfill_id
) w ON w.backfill_id = b.id
WHERE (:backfill_id IS NULL OR b.id = :backfill_id) AND (:connection IS NULL OR c.key = :connection)
    AND (:stream IS NULL OR s.key = :stream)
ORDER BY b.id DESC;

-- name: windows
-- The interval map.
SELECT * FROM windows WHERE backfill_id = :backfill_id ORDER BY window_start, id;

-- name: state
-- The state of a backfill.
SELECT state FROM backfills WHERE id = :backfill_id;

-- name: set_state
-- Change the state of a backfill.
UPDATE backfills SET state = :state, finished_at = :finished_at WHERE id = :backfill_id;

-- name: cancel_runs
-- The runs of a cancelled backfill.
UPDATE runs SET state = 'cancelled', lease_until = NULL, finished_at = :at
WHERE backfill_id = :backfill_id AND state IN ('scheduled', 'running', 'retrying');

-- name: cancel_windows
-- The windows of a cancelled backfill that are not over.
UPDATE windows SET state = 'cancelled', epoch = epoch + 1, finished_at = :at
WHERE backfill_id = :backfill_id AND state IN ('todo', 'running');

-- name: window
-- A window and its backfill.
SELECT id, backfill_id FROM windows WHERE id = :window_id;

-- name: cancel_window_run
-- The run of a window that starts again.
UPDATE runs SET state = 'cancelled', lease_until = NULL, finished_at = :at
WHERE window_id = :window_id AND state IN ('scheduled', 'running', 'retrying');

-- name: reset_window
-- A window to do again from its beginning.
UPDATE windows SET state = 'todo', epoch = epoch + 1, cursor = NULL, checkpoint_at = NULL, run_id = NULL, pages = 0, created = 0, updated = 0,
    unchanged = 0, duplicate = 0, stale = 0, deleted = 0, quarantined = 0, started_at = NULL, finished_at = NULL,
    error = NULL
WHERE id = :window_id;

-- name: settle
-- A running backfill none of whose windows is left is over: succeeded if all are done.
UPDATE backfills SET finished_at = :at,
    state = iif(EXISTS (SELECT 1 FROM windows WHERE backfill_id = :backfill_id AND state <> 'done'),
        'failed', 'succeeded')
WHERE id = :backfill_id AND state IN ('running', 'paused')
    AND NOT EXISTS (SELECT 1 FROM windows WHERE backfill_id = :backfill_id AND state IN ('todo', 'running'));
