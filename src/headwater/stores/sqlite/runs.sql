-- name: stream_owner
-- The connection of a stream.
SELECT connection_id, key FROM streams WHERE id = :stream_id;

-- name: live_run
-- The run of a stream that is under way.
SELECT id FROM runs
WHERE stream_id = :stream_id AND window_id IS NULL AND state IN ('scheduled', 'running', 'retrying');

-- name: insert_operator_run
-- A run that waits to be admitted.
INSERT INTO runs (connection_id, stream_id, trigger, state, priority, scheduled_at, due_at, window_start, window_end,
    pages_limit, allow_deletes)
VALUES (:connection_id, :stream_id, :trigger, 'scheduled', :priority, :at, :at, :window_start, :window_end,
    :pages_limit, :allow_deletes)
RETURNING id;

-- name: count_run
-- One more run, or one more failed run, in the figures of its stream.
INSERT INTO stream_hours (stream_id, hour, runs, failed) VALUES (:stream_id, :hour, :runs, :failed)
ON CONFLICT (stream_id, hour) DO UPDATE SET runs = runs + excluded.runs, failed = failed + excluded.failed;

-- name: begin
-- The attempt started.
UPDATE runs SET started_at = coalesce(started_at, :at), lease_until = :lease_until WHERE id = :run_id;

-- name: note_attempt
-- The stream was last tried now.
UPDATE streams SET last_attempt_at = :at WHERE id = :stream_id;

-- name: extend
-- Keep the lease.
UPDATE runs SET lease_until = :lease_until WHERE id = :run_id;

-- name: finish
-- The attempt is over: its state, its error, its lease.
UPDATE runs SET state = :state, lease_until = NULL, due_at = coalesce(:due_at, due_at), finished_at = :finished_at,
    started_at = coalesce(started_at, :at), error_code = :error_code, error = :error, traceback = :traceback
WHERE id = :run_id;

-- name: succeed_stream
-- A stream that succeeded is whole up to now, unless the provider still had more.
UPDATE streams SET last_success_at = iif(:complete, :at, last_success_at), last_attempt_at = :at, last_error = NULL,
    last_error_code = NULL, consecutive_failures = 0
WHERE id = :stream_id;

-- name: fail_stream
-- A stream whose attempt failed; a retry that is still to come is no failure yet.
UPDATE streams SET last_attempt_at = :at, last_error = :error, last_error_code = :error_code,
    consecutive_failures = consecutive_failures + :failures
WHERE id = :stream_id;

-- name: set_cursor
-- Put the checkpoint where the next run begins.
UPDATE streams SET cursor = :cursor, checkpoint_at = max(coalesce(checkpoint_at, :at), :at) WHERE id = :stream_id;

-- name: block_connection
-- The provider asked for silence: it knows the account, not our streams.
UPDATE streams SET blocked_until = max(coalesce(blocked_until, 0), :until) WHERE connection_id = :connection_id;

-- name: finish_window
-- A window after its run.
UPDATE windows SET state = :state, finished_at = :finished_at, error = :error WHERE id = :window_id;

-- name: cancel
-- A run that nobody carries out any more.
UPDATE runs SET state = 'cancelled', lease_until = NULL, finished_at = :at WHERE id = :run_id;

-- name: run_owner
-- What a run belongs to, and its state.
SELECT state, epoch, stream_id, window_id, backfill_id, has_more FROM runs WHERE id = :run_id;

-- name: fence_stream
-- Nobody who holds the present epoch commits any more.
UPDATE streams SET epoch = epoch + 1 WHERE id = :stream_id;

-- name: fence_window
-- Nobody who holds the present epoch commits any more; the window is given up.
UPDATE windows SET epoch = epoch + 1, state = 'cancelled', finished_at = :at WHERE id = :window_id;

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
FROM json_each(:since) j CROSS JOIN runs r ON r.id IN (
    SELECT id FROM runs
    WHERE stream_id = j.value ->> 0 AND scheduled_at >= j.value ->> 1 AND scheduled_at < :until AND backfill_id IS NULL
    ORDER BY scheduled_at, id LIMIT :limit)
ORDER BY r.stream_id, r.scheduled_at, r.id;

-- name: pages
-- The committed pages of a run.
SELECT * FROM pages WHERE run_id = :run_id ORDER BY number;

-- name: requests
-- What a run asked of its provider.
SELECT * FROM requests WHERE run_id = :run_id ORDER BY number;
