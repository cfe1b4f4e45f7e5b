-- name: stream_owner
-- The connection of a stream.
SELECT connection_id, key FROM streams WHERE id = %(stream_id)s;

-- name: live_run
-- The run of a stream that is under way.
SELECT id FROM runs
WHERE stream_id = %(stream_id)s AND window_id IS NULL AND state IN ('scheduled', 'running', 'retrying');

-- name: insert_operator_run
-- A run that waits to be admitted.
INSERT INTO runs (connection_id, stream_id, trigger, state, priority, scheduled_at, due_at, window_start, window_end,
    pages_limit, allow_deletes)
VALUES (%(connection_id)s, %(stream_id)s, %(trigger)s, 'scheduled', %(priority)s, %(at)s, %(at)s, %(window_start)s,
    %(window_end)s, %(pages_limit)s, %(allow_deletes)s)
RETURNING id;

-- name: count_run
-- One more run, or one more failed run, in the figures of its stream.
INSERT INTO stream_hours (stream_id, hour, runs, failed) VALUES (%(stream_id)s, %(hour)s, %(runs)s, %(failed)s)
ON CONFLICT (stream_id, hour) DO UPDATE SET runs = stream_hours.runs + excluded.runs,
    failed = stream_hours.failed + excluded.failed;

-- name: begin
-- The attempt started.
UPDATE runs SET started_at = coalesce(started_at, %(at)s), lease_until = %(lease_until)s WHERE id = %(run_id)s;

-- name: note_attempt
-- The stream was last tried now.
UPDATE streams SET last_attempt_at = %(at)s WHERE id = %(stream_id)s;

-- name: extend
-- Keep the lease.
UPDATE runs SET lease_until = %(lease_until)s WHERE id = %(run_id)s;

-- name: finish
-- The attempt is over: its state, its error, its lease.
UPDATE runs SET state = %(state)s, lease_until = NULL, due_at = coalesce(%(due_at)s, due_at),
    finished_at = %(finished_at)s, started_at = coalesce(started_at, %(at)s), error_code = %(error_code)s,
    error = %(error)s, traceback = %(traceback)s
WHERE id = %(run_id)s
RETURNING has_more, backfill_id;

-- name: succeed_stream
-- A stream that succeeded is whole up to now, unless the provider still had more.
UPDATE streams SET last_success_at = CASE WHEN %(complete)s THEN %(at)s ELSE last_success_at END,
    last_attempt_at = %(at)s, last_error = NULL, last_error_code = NULL, consecutive_failures = 0
WHERE id = %(stream_id)s;

-- name: fail_stream
-- A stream whose attempt failed; a retry that is still to come is no failure yet.
UPDATE streams SET last_attempt_at = %(at)s, last_error = %(error)s, last_error_code = %(error_code)s,
    consecutive_failures = consecutive_failures + %(failures)s
WHERE id = %(stream_id)s;

-- name: set_cursor
-- Put the checkpoint where the next run begins.
UPDATE streams SET cursor = %(cursor)s, checkpoint_at = greatest(checkpoint_at, %(at)s) WHERE id = %(stream_id)s;

-- name: block_connection
-- The provider asked for silence: it knows the account, not our streams.
UPDATE streams SET blocked_until = greatest(blocked_until, %(until)s) WHERE connection_id = %(connection_id)s;

-- name: silences
-- The connections that are asked nothing now, and until when.
SELECT connection_id, max(blocked_until) AS until FROM streams WHERE blocked_until > %(at)s GROUP BY connection_id;

-- name: finish_window
-- A window after its run.
UPDATE windows SET state = %(state)s, finished_at = %(finished_at)s, error = %(error)s WHERE id = %(window_id)s;

-- name: cancel
-- A run that nobody carries out any more.
UPDATE runs SET state = 'cancelled', lease_until = NULL, finished_at = %(at)s WHERE id = %(run_id)s;

-- name: run_owner
-- What a run belongs to, and its state.
SELECT state, stream_id, window_id, backfill_id FROM runs WHERE id = %(run_id)s;

-- name: fence_stream
-- Nobody who holds the present epoch commits any more.
UPDATE streams SET epoch = epoch + 1 WHERE id = %(stream_id)s;

-- name: fence_window
-- Nobody who holds the present epoch commits any more; the window is given up.
UPDATE windows SET epoch = epoch + 1, state = 'cancelled', finished_at = %(at)s WHERE id = %(window_id)s;

-- name: run_columns
-- Runs as they are listed; a condition and an order follow.
SELECT r.*, c.key AS connection_key, c.connector, s.key AS stream_key, s.partition
FROM runs r
JOIN connections c ON c.id = r.connection_id
JOIN streams s ON s.id = r.stream_id
WHERE true

-- name: tick_runs
-- Runs of streams since an instant of each, those of backfills apart.
SELECT r.stream_id, r.id, r.state, r.attempt, r.scheduled_at, r.finished_at,
    r.created + r.updated + r.deleted AS changed
FROM unnest(%(ids)s::bigint[], %(starts)s::bigint[]) AS j (stream_id, start) CROSS JOIN LATERAL (
    SELECT * FROM runs
    WHERE stream_id = j.stream_id AND scheduled_at >= j.start AND scheduled_at < %(until)s AND backfill_id IS NULL
    ORDER BY scheduled_at, id LIMIT %(limit)s) r
ORDER BY r.stream_id, r.scheduled_at, r.id;

-- name: pages
-- The committed pages of a run.
SELECT * FROM pages WHERE run_id = %(run_id)s ORDER BY number;

-- name: requests
-- What a run asked of its provider.
SELECT * FROM requests WHERE run_id = %(run_id)s ORDER BY number;
