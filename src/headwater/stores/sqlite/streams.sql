-- name: declare
-- One stream as its catalog declares it; a schedule that stays keeps its tick, unless that lies beyond the next one:
-- then the clock was ahead when it was written.
INSERT INTO streams (connection_id, key, partition, mode, schedule, timezone, expect_within_seconds, declared,
    registered_at, next_tick_at)
SELECT :connection_id, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, 1, :at,
    value ->> 6
FROM json_each(:rows) WHERE true
ON CONFLICT (connection_id, key, partition) DO UPDATE SET mode = excluded.mode,
    next_tick_at = iif(declared AND streams.schedule IS excluded.schedule AND streams.timezone = excluded.timezone
        AND streams.mode = excluded.mode AND coalesce(streams.next_tick_at <= excluded.next_tick_at, true),
        streams.next_tick_at, excluded.next_tick_at),
    schedule = excluded.schedule, timezone = excluded.timezone,
    expect_within_seconds = excluded.expect_within_seconds, declared = 1;

-- name: undeclare_others
-- Streams that the catalog no longer has keep their checkpoint, unscheduled and unlisted.
UPDATE streams SET declared = 0, next_tick_at = NULL
WHERE connection_id = :connection_id AND declared = 1
    AND (key, partition) NOT IN (SELECT value ->> 0, value ->> 1 FROM json_each(:rows));

-- name: pause
-- Pause a stream.
UPDATE streams SET paused_at = :at WHERE id = :stream_id;

-- name: resume
-- Undo a pause, and go on with the next tick.
UPDATE streams SET paused_at = NULL, next_tick_at = coalesce(:next_tick_at, next_tick_at) WHERE id = :stream_id;

-- name: set_checkpoint
-- Put the checkpoint where an operator wants it; a run under way is fenced.
UPDATE streams SET cursor = :cursor, checkpoint_at = max(coalesce(checkpoint_at, :at), :at), epoch = epoch + 1
WHERE id = :stream_id;

-- name: restart_live_run
-- The fenced run waits again and goes on from the new checkpoint.
UPDATE runs SET state = 'scheduled', due_at = :at, lease_until = NULL
WHERE stream_id = :stream_id AND window_id IS NULL AND state = 'running';

-- name: states
-- The declared streams with their figures since :since, counted in whole hours.
WITH day AS (
    SELECT h.stream_id, sum(runs) AS runs_24h, sum(failed) AS failed_24h, sum(created) AS created,
        sum(updated) AS updated, sum(unchanged) AS unchanged, sum(duplicate) AS duplicate, sum(stale) AS stale,
        sum(deleted) AS deleted, sum(quarantined) AS quarantined, sum(poll_changes) AS poll_changes,
        sum(webhook_changes) AS webhook_changes
    FROM streams s CROSS JOIN stream_hours h ON h.stream_id = s.id AND h.hour > :since
    WHERE s.declared = 1 GROUP BY s.id
), arrived AS (
    SELECT h.connection_id, sum(deliveries) AS deliveries
    FROM connections c CROSS JOIN connection_hours h ON h.connection_id = c.id AND h.hour > :since GROUP BY c.id
), refused AS (
    SELECT h.connection_id, sum(count) AS rejected
    FROM connections c CROSS JOIN rejections h ON h.connection_id = c.id AND h.hour > :since GROUP BY c.id
), pending AS (
    SELECT connection_id, count(*) AS n FROM deliveries WHERE state = 'pending' GROUP BY connection_id
), dead AS (
    SELECT connection_id, count(*) AS n FROM deliveries WHERE state = 'dead' GROUP BY connection_id
)
SELECT s.*, c.key AS connection_key, c.connector, c.tenant, c.paused_at AS connection_paused_at, c.paused_reason,
    c.needs_attention, c.last_delivery_at, r.id AS run_id, r.state AS run_state, r.due_at AS run_due_at, day.*,
    arrived.deliveries, refused.rejected, pending.n AS pending, dead.n AS dead
FROM streams s
JOIN connections c ON c.id = s.connection_id
LEFT JOIN runs r ON r.stream_id = s.id AND r.window_id IS NULL AND r.state IN ('scheduled', 'running', 'retrying')
LEFT JOIN day ON day.stream_id = s.id
LEFT JOIN arrived ON arrived.connection_id = s.connection_id
LEFT JOIN refused ON refused.connection_id = s.connection_id
LEFT JOIN pending ON pending.connection_id = s.connection_id
LEFT JOIN dead ON dead.connection_id = s.connection_id
WHERE s.declared = 1 AND (:connection IS NULL OR c.key = :connection) AND (:tenant IS NULL OR c.tenant = :tenant)
    AND (:stream IS NULL OR s.key = :stream)
ORDER BY c.key, s.key, s.partition;
