-- name: insert
-- Store a backfill.
INSERT INTO backfills (stream_id, span_start, span_end, state, created_at)
VALUES (%(stream_id)s, %(span_start)s, %(span_end)s, 'running', %(at)s) RETURNING id;

-- name: insert_windows
-- Its windows, all to do.
INSERT INTO windows (backfill_id, window_start, window_end)
SELECT %(backfill_id)s, start, finish
FROM unnest(%(starts)s::bigint[], %(ends)s::bigint[]) AS j (start, finish) ORDER BY start;

-- name: list
-- Backfills with what their windows came to; a condition and an order follow.
SELECT b.*, c.key AS connection_key, s.key AS stream_key, s.partition,
    w.todo, w.running, w.done, w.failed, w.cancelled, w.pages, w.created, w.updated, w.unchanged, w.duplicate, w.stale,
    w.deleted, w.quarantined
FROM backfills b
JOIN streams s ON s.id = b.stream_id
JOIN connections c ON c.id = s.connection_id
LEFT JOIN (
    SELECT backfill_id, count(*) FILTER (WHERE state = 'todo') AS todo,
        count(*) FILTER (WHERE state = 'running') AS running, count(*) FILTER (WHERE state = 'done') AS done,
        count(*) FILTER (WHERE state = 'failed') AS failed, count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
        sum(pages)::bigint AS pages, sum(created)::bigint AS created, sum(updated)::bigint AS updated,
        sum(unchanged)::bigint AS unchanged, sum(duplicate)::bigint AS duplicate, sum(stale)::bigint AS stale,
        sum(deleted)::bigint AS deleted, sum(quarantined)::bigint AS quarantined
    FROM windows GROUP BY backfill_id
) w ON w.backfill_id = b.id
WHERE (%(backfill_id)s::bigint IS NULL OR b.id = %(backfill_id)s) AND (%(connection)s::text IS NULL OR c.key = %(connection)s)
    AND (%(stream)s::text IS NULL OR s.key = %(stream)s)
ORDER BY b.id DESC;

-- name: windows
-- The interval map.
SELECT * FROM windows WHERE backfill_id = %(backfill_id)s ORDER BY window_start, id;

-- name: set_state
-- Change the state of a backfill.
UPDATE backfills SET state = %(state)s, finished_at = %(finished_at)s WHERE id = %(backfill_id)s;

-- name: cancel_runs
-- The runs of a cancelled backfill.
UPDATE runs SET state = 'cancelled', lease_until = NULL, finished_at = %(at)s
WHERE backfill_id = %(backfill_id)s AND state IN ('scheduled', 'running', 'retrying');

-- name: cancel_windows
-- The windows of a cancelled backfill that are not over.
UPDATE windows SET state = 'cancelled', epoch = epoch + 1, finished_at = %(at)s
WHERE backfill_id = %(backfill_id)s AND state IN ('todo', 'running');

-- name: window_backfill
-- The backfill of a window.
SELECT backfill_id FROM windows WHERE id = %(window_id)s;

-- name: hold_backfill
-- Hold the connection of a backfill.
SELECT c.id FROM connections c JOIN streams s ON s.connection_id = c.id JOIN backfills b ON b.stream_id = s.id
WHERE b.id = %(backfill_id)s FOR NO KEY UPDATE OF c;

-- name: cancel_window_run
-- The run of a window that starts again.
UPDATE runs SET state = 'cancelled', lease_until = NULL, finished_at = %(at)s
WHERE window_id = %(window_id)s AND state IN ('scheduled', 'running', 'retrying');

-- name: reset_window
-- A window to do again from its beginning.
UPDATE windows SET state = 'todo', epoch = epoch + 1, cursor = NULL, checkpoint_at = NULL, run_id = NULL, pages = 0,
    created = 0, updated = 0, unchanged = 0, duplicate = 0, stale = 0, deleted = 0, quarantined = 0, started_at = NULL, finished_at = NULL,
    error = NULL
WHERE id = %(window_id)s;

-- name: settle
-- A running backfill none of whose windows is left is over: succeeded if all are done.
UPDATE backfills SET finished_at = %(at)s,
    state = CASE WHEN EXISTS (SELECT 1 FROM windows WHERE backfill_id = %(backfill_id)s AND state <> 'done')
        THEN 'failed' ELSE 'succeeded' END
WHERE id = %(backfill_id)s AND state IN ('running', 'paused')
    AND NOT EXISTS (SELECT 1 FROM windows WHERE backfill_id = %(backfill_id)s AND state IN ('todo', 'running'));
