-- name: expire_leases
-- Runs whose lease ran out wait again; their holder is fenced by the next admission's epoch.
UPDATE runs SET state = 'scheduled', due_at = :at, lease_until = NULL
WHERE state = 'running' AND lease_until <= :at;

-- name: readmit
-- Every running run waits again at once.
UPDATE runs SET state = 'scheduled', due_at = :at, lease_until = NULL WHERE state = 'running';

-- name: readmit_deliveries
-- Every claimed delivery may be claimed anew; whoever held it is fenced by the next claim's epoch.
UPDATE deliveries SET lease_until = NULL WHERE state = 'pending' AND lease_until IS NOT NULL;

-- name: bring_back_runs
-- Runs that wait for an instant of a clock which was ahead are due now.
UPDATE runs SET due_at = :at WHERE state IN ('scheduled', 'retrying') AND due_at > :at;

-- name: bring_back_leases
-- No lease ends later than one that begins now.
UPDATE runs SET lease_until = :lease_until WHERE state = 'running' AND lease_until > :lease_until;

-- name: bring_back_streams
-- No silence holds that a provider asked of such a clock.
UPDATE streams SET blocked_until = NULL WHERE blocked_until > :at;

-- name: bring_back_deliveries
-- Deliveries that wait are due now, and no claim ends later than one of now.
UPDATE deliveries SET due_at = min(due_at, :at), lease_until = min(lease_until, :lease_until)
WHERE state = 'pending' AND (due_at > :at OR lease_until > :lease_until);

-- name: bring_back_notifications
-- Messages that wait are due now, and no claim ends later than one of now.
UPDATE notifications SET due_at = min(due_at, :at), lease_until = min(lease_until, :lease_until)
WHERE sent_at IS NULL AND given_up_at IS NULL AND (due_at > :at OR lease_until > :lease_until);

-- name: last_instant
-- When anything was last tried, received or made to run: no run is made for later.
SELECT max(at) FROM (
    SELECT max(last_attempt_at) AS at FROM streams UNION ALL SELECT max(last_delivery_at) FROM connections
    UNION ALL SELECT max(due_at) FROM runs WHERE state = 'scheduled');

-- name: due_streams
-- The streams whose tick has come, and whether their run before is still under way.
SELECT json_group_array(json_array(id, connection_id, schedule, timezone, next_tick_at, is_running)) FROM (
    SELECT s.id, s.connection_id, s.schedule, s.timezone, s.next_tick_at, r.id IS NOT NULL AS is_running
    FROM streams s INDEXED BY streams_due
    JOIN connections c ON c.id = s.connection_id AND c.paused_at IS NULL
    LEFT JOIN runs r ON r.stream_id = s.id AND r.window_id IS NULL AND r.state IN ('scheduled', 'running', 'retrying')
    WHERE s.next_tick_at <= :at AND s.next_tick_at IS NOT NULL AND s.declared = 1 AND s.paused_at IS NULL
    ORDER BY s.next_tick_at LIMIT :limit
);

-- name: insert_tick_runs
-- One waiting run for each stream that starts; its occurrence is the tick, its epoch the one that `move_ticks` raises.
INSERT INTO runs (connection_id, stream_id, trigger, state, priority, epoch, scheduled_at, due_at)
SELECT s.connection_id, s.id, 'tick', 'scheduled', :priority, s.epoch + 1, s.next_tick_at, :at
FROM json_each(:rows) j JOIN streams s ON s.id = j.value ->> 0
WHERE j.value ->> 2 = 1;

-- name: count_started
-- The started runs in the figures of the hour.
INSERT INTO stream_hours (stream_id, hour, runs)
SELECT value ->> 0, :hour, 1 FROM json_each(:rows) WHERE value ->> 2 = 1
ON CONFLICT (stream_id, hour) DO UPDATE SET runs = runs + 1;

-- name: move_ticks
-- The next tick of each due stream, with the epoch of the run that starts; a tick that starts nothing is counted.
UPDATE streams SET epoch = streams.epoch + j.start, next_tick_at = j.next_tick_at, skipped_ticks = streams.skipped_ticks + 1 - j.start
FROM (
    SELECT value ->> 0 AS id, value ->> 1 AS next_tick_at, value ->> 2 AS start FROM json_each(:rows)
) j
WHERE streams.id = j.id;

-- name: insert_window_runs
-- The oldest windows to do of running backfills become runs, as many a connection as may run beside each other.
INSERT INTO runs (connection_id, stream_id, backfill_id, window_id, trigger, state, priority, scheduled_at, due_at,
    window_start, window_end)
SELECT connection_id, stream_id, backfill_id, window_id, 'backfill', 'scheduled', :priority, :at, :at, window_start,
    window_end
FROM (
    SELECT s.connection_id, s.id AS stream_id, b.id AS backfill_id, w.id AS window_id, w.window_start, w.window_end,
        row_number() OVER (PARTITION BY s.connection_id ORDER BY b.id, w.window_start, w.id) + (
            SELECT count(*) FROM runs live WHERE live.connection_id = s.connection_id AND live.window_id IS NOT NULL
                AND live.state IN ('scheduled', 'running', 'retrying')
        ) AS place
    FROM backfills b
    JOIN streams s ON s.id = b.stream_id AND s.declared = 1 AND s.paused_at IS NULL
    JOIN connections c ON c.id = s.connection_id AND c.paused_at IS NULL
    JOIN windows w ON w.id IN (
        SELECT todo.id FROM windows todo
        WHERE todo.backfill_id = b.id AND todo.state = 'todo' AND NOT EXISTS (
            SELECT 1 FROM runs live
            WHERE live.window_id = todo.id AND live.state IN ('scheduled', 'running', 'retrying'))
        ORDER BY todo.window_start LIMIT :per_connection_max)
    WHERE b.state = 'running'
)
WHERE place <= :per_connection_max;

-- name: waiting_runs
-- The runs that may be admitted now: smaller priority first, connections in turn, none beyond its connection's cap.
-- From one connection with waiting runs the index leads to the next; no more is looked at of each than its cap allows.
WITH RECURSIVE home (id) AS (
    SELECT min(connection_id) FROM runs INDEXED BY runs_turn WHERE state IN ('scheduled', 'retrying')
    UNION ALL
    SELECT (
        SELECT min(connection_id) FROM runs INDEXED BY runs_turn
        WHERE state IN ('scheduled', 'retrying') AND connection_id > home.id)
    FROM home WHERE home.id IS NOT NULL
), waiting AS (
    SELECT r.id, r.priority, r.due_at,
        (SELECT count(*) FROM runs live WHERE live.state = 'running' AND live.connection_id = c.id) AS running,
        row_number() OVER (PARTITION BY r.connection_id ORDER BY r.priority, r.due_at, r.id) AS place,
        row_number() OVER (PARTITION BY r.connection_id, r.priority ORDER BY r.due_at, r.id) AS turn
    FROM home
    JOIN connections c ON c.id = home.id AND c.paused_at IS NULL
    JOIN runs r ON r.id IN (
        SELECT w.id FROM runs w INDEXED BY runs_turn
        JOIN streams s ON s.id = w.stream_id AND s.paused_at IS NULL AND s.declared = 1
        LEFT JOIN backfills b ON b.id = w.backfill_id
        WHERE w.connection_id = c.id AND w.state IN ('scheduled', 'retrying') AND w.due_at <= :at
            AND (s.blocked_until IS NULL OR s.blocked_until <= :at) AND (b.id IS NULL OR b.state = 'running')
        ORDER BY w.priority, w.due_at, w.id LIMIT :per_connection_max)
)
SELECT json_group_array(id) FROM (
    SELECT id FROM waiting WHERE place + running <= :per_connection_max
    ORDER BY priority, turn + running, due_at, id LIMIT :limit
);

-- name: raise_stream_epochs
-- A new fencing token for the stream of each admitted run, unless its first attempt has one from its tick.
UPDATE streams SET epoch = epoch + 1
WHERE id IN (
    SELECT r.stream_id FROM json_each(:run_ids) j JOIN runs r ON r.id = j.value JOIN streams s ON s.id = r.stream_id
    WHERE r.window_id IS NULL AND (r.attempt > 0 OR r.epoch <> s.epoch));

-- name: raise_window_epochs
-- A new fencing token for the window of each admitted run; the window is under way.
UPDATE windows SET epoch = epoch + 1, attempts = attempts + 1, state = 'running', run_id = j.run_id,
    started_at = coalesce(started_at, :at), finished_at = NULL, error = NULL
FROM (SELECT r.window_id, r.id AS run_id FROM json_each(:run_ids) e JOIN runs r ON r.id = e.value) j
WHERE windows.id = j.window_id;

-- name: admit
-- Give runs their lease and their stream's (or window's) epoch.
UPDATE runs SET state = 'running', attempt = attempt + 1, epoch = j.epoch, lease_until = :lease_until,
    cursor_before = CASE WHEN runs.attempt = 0 THEN j.cursor ELSE runs.cursor_before END
FROM (
    SELECT r.id, coalesce(w.epoch, s.epoch) AS epoch, CASE WHEN w.id IS NULL THEN s.cursor ELSE w.cursor END AS cursor
    FROM json_each(:run_ids) e
    JOIN runs r ON r.id = e.value
    JOIN streams s ON s.id = r.stream_id
    LEFT JOIN windows w ON w.id = r.window_id
) j
WHERE runs.id = j.id;

-- name: admitted
-- What an engine is told about admitted runs, in the order of their admission.
SELECT json_group_array(json_array(id, connection_id, stream_id, key, partition, trigger, priority, epoch, attempt,
    cursor, window_start, window_end, window_id, pages, pages_limit, allow_deletes, checkpoint_at)) FROM (
    SELECT r.id, r.connection_id, r.stream_id, s.key, s.partition, r.trigger, r.priority, r.epoch, r.attempt,
        CASE WHEN w.id IS NULL THEN s.cursor ELSE w.cursor END AS cursor, r.window_start, r.window_end, r.window_id,
        r.pages, r.pages_limit, r.allow_deletes,
        CASE WHEN w.id IS NULL THEN s.checkpoint_at ELSE w.checkpoint_at END AS checkpoint_at
    FROM json_each(:run_ids) e
    JOIN runs r ON r.id = e.value
    JOIN streams s ON s.id = r.stream_id
    LEFT JOIN windows w ON w.id = r.window_id
    ORDER BY e.key
);

-- name: next_due
-- The next instant at which a tick has work, if nothing else happens.
SELECT min(at) FROM (
    SELECT at FROM (
        SELECT s.next_tick_at AS at FROM streams s INDEXED BY streams_due
        JOIN connections c ON c.id = s.connection_id AND c.paused_at IS NULL
        WHERE s.next_tick_at IS NOT NULL AND s.declared = 1 AND s.paused_at IS NULL
        ORDER BY s.next_tick_at LIMIT 1)
    UNION ALL
    SELECT min(lease_until) FROM runs WHERE state = 'running'
    UNION ALL
    SELECT due_at FROM (
        SELECT r.due_at FROM runs r INDEXED BY runs_waiting
        JOIN streams s ON s.id = r.stream_id AND s.paused_at IS NULL AND s.declared = 1
        JOIN connections c ON c.id = r.connection_id AND c.paused_at IS NULL
        LEFT JOIN backfills b ON b.id = r.backfill_id
        WHERE r.state IN ('scheduled', 'retrying') AND r.due_at > :at AND (b.id IS NULL OR b.state = 'running')
        ORDER BY r.due_at LIMIT 1)
    UNION ALL
    SELECT blocked_until FROM (
        SELECT s.blocked_until FROM streams s INDEXED BY streams_blocked
        WHERE s.blocked_until IS NOT NULL AND s.blocked_until > :at AND s.paused_at IS NULL AND s.declared = 1
            AND EXISTS (SELECT 1 FROM runs r WHERE r.stream_id = s.id AND r.state IN ('scheduled', 'retrying'))
        ORDER BY s.blocked_until LIMIT 1)
);
