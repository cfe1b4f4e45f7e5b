-- name: one_at_a_time
-- Ticks of all nodes follow each other: whoever comes second finds nothing due.
SELECT pg_advisory_xact_lock(5252, 2);

-- name: keep_waiting
-- Runs that wait in the engine's queue keep their lease; one that somebody else holds just now is its business.
UPDATE runs SET lease_until = %(lease_until)s
WHERE id IN (
    SELECT id FROM runs
    WHERE id = ANY(%(run_ids)s::bigint[]) AND state = 'running' AND lease_until < %(renew_before)s
    FOR NO KEY UPDATE SKIP LOCKED);

-- name: count_under_way
-- The runs that are under way on all nodes, waiting in the engine's queue or begun.
SELECT count(*) FROM runs WHERE state = 'running' AND lease_until > %(at)s;

-- name: busy_connections
-- Hold the connections for which this tick may have work; whether they are paused stays so meanwhile.
SELECT c.id, c.paused_at IS NULL AS is_active FROM connections c
WHERE c.id IN (SELECT r.connection_id FROM runs r WHERE r.state = 'running' AND r.lease_until <= %(at)s)
    OR c.paused_at IS NULL AND c.id IN (
        SELECT r.connection_id FROM runs r WHERE r.state IN ('scheduled', 'retrying') AND r.due_at <= %(at)s
        UNION
        SELECT due.connection_id FROM (
            SELECT s.connection_id FROM streams s
            WHERE s.next_tick_at <= %(at)s AND s.next_tick_at IS NOT NULL AND s.declared AND s.paused_at IS NULL
            ORDER BY s.next_tick_at LIMIT %(limit)s) due
        UNION
        SELECT s.connection_id FROM backfills b JOIN streams s ON s.id = b.stream_id WHERE b.state = 'running')
ORDER BY c.id FOR NO KEY UPDATE OF c;

-- name: expire_leases
-- Runs whose lease ran out wait again; their holder is fenced by the next admission's epoch.
UPDATE runs SET state = 'scheduled', due_at = %(at)s, lease_until = NULL
WHERE state = 'running' AND lease_until <= %(at)s AND connection_id = ANY(%(held)s::bigint[]);

-- name: readmit
-- Every running run waits again at once.
UPDATE runs SET state = 'scheduled', due_at = %(at)s, lease_until = NULL WHERE state = 'running';

-- name: readmit_deliveries
-- Every claimed delivery may be claimed anew; whoever held it is fenced by the next claim's epoch.
UPDATE deliveries SET lease_until = NULL WHERE state = 'pending' AND lease_until IS NOT NULL;

-- name: bring_back_runs
-- Runs that wait for an instant of a clock which was ahead are due now.
UPDATE runs SET due_at = %(at)s WHERE state IN ('scheduled', 'retrying') AND due_at > %(at)s;

-- name: bring_back_leases
-- No lease ends later than one that begins now.
UPDATE runs SET lease_until = %(lease_until)s WHERE state = 'running' AND lease_until > %(lease_until)s;

-- name: bring_back_streams
-- No silence holds that a provider asked of such a clock.
UPDATE streams SET blocked_until = NULL WHERE blocked_until > %(at)s;

-- name: bring_back_deliveries
-- Deliveries that wait are due now, and no claim ends later than one of now.
UPDATE deliveries SET due_at = least(due_at, %(at)s),
    lease_until = CASE WHEN lease_until > %(lease_until)s THEN %(lease_until)s ELSE lease_until END
WHERE state = 'pending' AND (due_at > %(at)s OR lease_until > %(lease_until)s);

-- name: bring_back_notifications
-- Messages that wait are due now, and no claim ends later than one of now.
UPDATE notifications SET due_at = least(due_at, %(at)s),
    lease_until = CASE WHEN lease_until > %(lease_until)s THEN %(lease_until)s ELSE lease_until END
WHERE sent_at IS NULL AND given_up_at IS NULL AND (due_at > %(at)s OR lease_until > %(lease_until)s);

-- name: last_instant
-- When anything was last tried, received or made to run: no run is made for later.
SELECT greatest(
    (SELECT max(last_attempt_at) FROM streams), (SELECT max(last_at) FROM arrivals),
    (SELECT max(due_at) FROM runs WHERE state = 'scheduled'));

-- name: due_streams
-- The streams whose tick has come, and whether their run before is still under way.
SELECT s.id, s.connection_id, s.schedule, s.timezone, s.next_tick_at, r.id IS NOT NULL AS is_running
FROM streams s
CROSS JOIN LATERAL (SELECT id FROM connections WHERE id = s.connection_id AND paused_at IS NULL LIMIT 1) c
LEFT JOIN LATERAL (
    SELECT id FROM runs WHERE stream_id = s.id AND window_id IS NULL AND state IN ('scheduled', 'running', 'retrying')
    LIMIT 1
) r ON true
WHERE s.next_tick_at <= %(at)s AND s.next_tick_at IS NOT NULL AND s.declared AND s.paused_at IS NULL
    AND s.connection_id = ANY(%(held)s::bigint[])
ORDER BY s.next_tick_at, s.id LIMIT %(limit)s;

-- name: insert_tick_runs
-- One waiting run for each stream that starts; its occurrence is the tick, its epoch the one that `move_ticks` raises.
INSERT INTO runs (connection_id, stream_id, trigger, state, priority, epoch, scheduled_at, due_at)
SELECT s.connection_id, s.id, 'tick', 'scheduled', %(priority)s, s.epoch + 1, s.next_tick_at, %(at)s
FROM ROWS FROM (json_to_recordset(%(rows)s::json) AS (id bigint, next_tick_at bigint, start integer))
    WITH ORDINALITY AS j (id, next_tick_at, start, place)
JOIN streams s ON s.id = j.id
WHERE j.start = 1
ORDER BY j.place;

-- name: count_started
-- The started runs in the figures of the hour.
INSERT INTO stream_hours (stream_id, hour, runs)
SELECT id, %(hour)s, 1 FROM json_to_recordset(%(rows)s::json) AS j (id bigint, start integer) WHERE j.start = 1
ON CONFLICT (stream_id, hour) DO UPDATE SET runs = stream_hours.runs + 1;

-- name: move_ticks
-- The next tick of each due stream, with the epoch of the run that starts; a tick that starts nothing is counted.
UPDATE streams SET epoch = streams.epoch + j.start, next_tick_at = j.next_tick_at,
    skipped_ticks = streams.skipped_ticks + 1 - j.start
FROM json_to_recordset(%(rows)s::json) AS j (id bigint, next_tick_at bigint, start integer)
WHERE streams.id = j.id;

-- name: insert_window_runs
-- The oldest windows to do of running backfills become runs, as many a connection as may run beside each other.
INSERT INTO runs (connection_id, stream_id, backfill_id, window_id, trigger, state, priority, scheduled_at, due_at,
    window_start, window_end)
SELECT connection_id, stream_id, backfill_id, window_id, 'backfill', 'scheduled', %(priority)s, %(at)s, %(at)s,
    window_start, window_end
FROM (
    SELECT s.connection_id, s.id AS stream_id, b.id AS backfill_id, w.id AS window_id, w.window_start, w.window_end,
        row_number() OVER (PARTITION BY s.connection_id ORDER BY b.id, w.window_start, w.id) + (
            SELECT count(*) FROM runs live WHERE live.connection_id = s.connection_id AND live.window_id IS NOT NULL
                AND live.state IN ('scheduled', 'running', 'retrying')
        ) AS place
    FROM backfills b
    JOIN streams s ON s.id = b.stream_id AND s.declared AND s.paused_at IS NULL
    JOIN connections c ON c.id = s.connection_id AND c.paused_at IS NULL
    CROSS JOIN LATERAL (
        SELECT todo.* FROM windows todo
        WHERE todo.backfill_id = b.id AND todo.state = 'todo' AND NOT EXISTS (
            SELECT 1 FROM runs live
            WHERE live.window_id = todo.id AND live.state IN ('scheduled', 'running', 'retrying'))
        ORDER BY todo.window_start LIMIT %(per_connection_max)s
    ) w
    WHERE b.state = 'running' AND s.connection_id = ANY(%(held)s::bigint[])
) todo
WHERE place <= %(per_connection_max)s
ORDER BY connection_id, place;

-- name: kept_streams
-- The streams that start nothing now: paused, not declared any more, or asked for silence. They are few.
SELECT id FROM streams WHERE paused_at IS NOT NULL OR NOT declared
UNION ALL
SELECT id FROM streams WHERE blocked_until > %(at)s;

-- name: waiting_runs
-- The runs that may be admitted now: smaller priority first, connections in turn, none beyond its connection's cap.
-- No more is looked at of a connection than its cap allows; streams that are kept are told apart without a look at each
-- run's own. None of the connections given is paused.
SELECT r.id FROM (
    SELECT a.id, coalesce(running.n, 0) AS running FROM unnest(%(active)s::bigint[]) AS a (id)
    LEFT JOIN (SELECT connection_id, count(*) AS n FROM runs WHERE state = 'running' GROUP BY connection_id) running
        ON running.connection_id = a.id
) h
CROSS JOIN LATERAL (
    SELECT id, priority, due_at, row_number() OVER (PARTITION BY priority ORDER BY due_at, id) AS turn
    FROM (
        SELECT w.id, w.priority, w.due_at FROM runs w
        WHERE w.connection_id = h.id AND w.state IN ('scheduled', 'retrying') AND w.due_at <= %(at)s
            AND w.stream_id <> ALL(%(kept)s::bigint[])
            AND (w.backfill_id IS NULL OR (SELECT state FROM backfills WHERE id = w.backfill_id) = 'running')
        ORDER BY w.priority, w.due_at, w.id LIMIT greatest(%(per_connection_max)s - h.running, 0)
    ) first
) r
ORDER BY r.priority, r.turn + h.running, r.due_at, r.id LIMIT %(limit)s;

-- name: raise_stream_epochs
-- A new fencing token for the stream of each admitted run, unless its first attempt has one from its tick.
UPDATE streams SET epoch = epoch + 1
WHERE id IN (
    SELECT r.stream_id FROM runs r JOIN streams s ON s.id = r.stream_id
    WHERE r.id = ANY(%(run_ids)s::bigint[]) AND r.window_id IS NULL AND (r.attempt > 0 OR r.epoch <> s.epoch));

-- name: raise_window_epochs
-- A new fencing token for the window of each admitted run; the window is under way.
UPDATE windows SET epoch = windows.epoch + 1, attempts = windows.attempts + 1, state = 'running', run_id = r.id,
    started_at = coalesce(windows.started_at, %(at)s), finished_at = NULL, error = NULL
FROM runs r
WHERE r.id = ANY(%(run_ids)s::bigint[]) AND windows.id = r.window_id;

-- name: admit
-- Give runs their lease and their stream's (or window's) epoch.
UPDATE runs SET state = 'running', attempt = runs.attempt + 1, epoch = coalesce(w.epoch, s.epoch),
    lease_until = %(lease_until)s,
    cursor_before = CASE WHEN runs.attempt > 0 THEN runs.cursor_before WHEN w.id IS NULL THEN s.cursor ELSE w.cursor END
FROM runs r JOIN streams s ON s.id = r.stream_id LEFT JOIN windows w ON w.id = r.window_id
WHERE r.id = ANY(%(run_ids)s::bigint[]) AND runs.id = r.id;

-- name: admitted
-- What an engine is told about admitted runs, in the order of their admission.
SELECT r.id, r.connection_id, r.stream_id, s.key, s.partition, r.trigger, r.priority, r.epoch, r.attempt,
    CASE WHEN w.id IS NULL THEN s.cursor ELSE w.cursor END AS cursor, r.window_start, r.window_end, r.window_id,
    r.pages, r.pages_limit, r.allow_deletes,
    CASE WHEN w.id IS NULL THEN s.checkpoint_at ELSE w.checkpoint_at END AS checkpoint_at
FROM unnest(%(run_ids)s::bigint[]) WITH ORDINALITY AS e (id, place)
JOIN runs r ON r.id = e.id
JOIN streams s ON s.id = r.stream_id
LEFT JOIN windows w ON w.id = r.window_id
ORDER BY e.place;

-- name: run_state
-- The state of a run.
SELECT state FROM runs WHERE id = %(run_id)s;

-- name: next_due
-- The next instant at which a tick has work, if nothing else happens.
SELECT min(at) FROM (
    (SELECT s.next_tick_at AS at FROM streams s
    CROSS JOIN LATERAL (SELECT id FROM connections WHERE id = s.connection_id AND paused_at IS NULL LIMIT 1) c
    WHERE s.next_tick_at IS NOT NULL AND s.declared AND s.paused_at IS NULL
    ORDER BY s.next_tick_at LIMIT 1)
    UNION ALL
    SELECT min(lease_until) FROM runs WHERE state = 'running'
    UNION ALL
    (SELECT r.due_at FROM runs r
    CROSS JOIN LATERAL (SELECT id FROM streams WHERE id = r.stream_id AND paused_at IS NULL AND declared LIMIT 1) s
    CROSS JOIN LATERAL (SELECT id FROM connections WHERE id = r.connection_id AND paused_at IS NULL LIMIT 1) c
    LEFT JOIN LATERAL (SELECT state FROM backfills WHERE id = r.backfill_id LIMIT 1) b ON true
    WHERE r.state IN ('scheduled', 'retrying') AND r.due_at > %(at)s
        AND (r.backfill_id IS NULL OR b.state = 'running')
    ORDER BY r.due_at LIMIT 1)
    UNION ALL
    (SELECT s.blocked_until FROM streams s
    WHERE s.blocked_until > %(at)s AND s.paused_at IS NULL AND s.declared
        AND EXISTS (SELECT 1 FROM runs r WHERE r.stream_id = s.id AND r.state IN ('scheduled', 'retrying'))
    ORDER BY s.blocked_until LIMIT 1)
) due;
