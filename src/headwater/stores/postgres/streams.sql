-- name: declare
-- Streams as their catalog declares them; a schedule that stays keeps its tick, unless that lies beyond the next one:
-- then the clock was ahead when it was written.
INSERT INTO streams (connection_id, key, partition, mode, schedule, timezone, expect_within_seconds, declared,
    registered_at, next_tick_at)
SELECT %(connection_id)s, key, partition, mode, schedule, timezone, expect_within_seconds, true, %(at)s, next_tick_at
FROM json_to_recordset(%(rows)s::json) AS j (key text, partition text, mode text, schedule text, timezone text,
    expect_within_seconds bigint, next_tick_at bigint)
ON CONFLICT (connection_id, key, partition) DO UPDATE SET mode = excluded.mode,
    next_tick_at = CASE WHEN streams.declared AND streams.schedule IS NOT DISTINCT FROM excluded.schedule
        AND streams.timezone = excluded.timezone AND streams.mode = excluded.mode
        AND coalesce(streams.next_tick_at <= excluded.next_tick_at, true)
        THEN streams.next_tick_at ELSE excluded.next_tick_at END,
    schedule = excluded.schedule, timezone = excluded.timezone,
    expect_within_seconds = excluded.expect_within_seconds, declared = true;

-- name: undeclare_others
-- Streams that the catalog no longer has keep their checkpoint, unscheduled and unlisted.
UPDATE streams SET declared = false, next_tick_at = NULL
WHERE connection_id = %(connection_id)s AND declared AND (key, partition) NOT IN (
    SELECT key, partition FROM json_to_recordset(%(rows)s::json) AS j (key text, partition text));

-- name: pause
-- Pause a stream.
UPDATE streams SET paused_at = %(at)s WHERE id = %(stream_id)s;

-- name: resume
-- Undo a pause, and go on with the next tick.
UPDATE streams SET paused_at = NULL, next_tick_at = coalesce(%(next_tick_at)s, next_tick_at) WHERE id = %(stream_id)s;

-- name: set_checkpoint
-- Put the checkpoint where an operator wants it; a run under way is fenced.
UPDATE streams SET cursor = %(cursor)s, checkpoint_at = greatest(checkpoint_at, %(at)s), epoch = epoch + 1
WHERE id = %(stream_id)s;

-- name: restart_live_run
-- The fenced run waits again and goes on from the new checkpoint.
UPDATE runs SET state = 'scheduled', due_at = %(at)s, lease_until = NULL
WHERE stream_id = %(stream_id)s AND window_id IS NULL AND state = 'running';

-- name: states
-- The declared streams with their figures since `since`, counted in whole hours.
WITH wanted AS (
    SELECT s.id, s.connection_id FROM streams s JOIN connections c ON c.id = s.connection_id
    WHERE s.declared AND (%(connection)s::text IS NULL OR c.key = %(connection)s)
        AND (%(tenant)s::text IS NULL OR c.tenant = %(tenant)s) AND (%(stream)s::text IS NULL OR s.key = %(stream)s)
), homes AS (
    SELECT DISTINCT connection_id FROM wanted
), day AS (
    SELECT h.stream_id, sum(runs)::bigint AS runs_24h, sum(failed)::bigint AS failed_24h,
        sum(created)::bigint AS created, sum(updated)::bigint AS updated, sum(unchanged)::bigint AS unchanged,
        sum(duplicate)::bigint AS duplicate, sum(stale)::bigint AS stale, sum(deleted)::bigint AS deleted,
        sum(quarantined)::bigint AS quarantined, sum(poll_changes)::bigint AS poll_changes,
        sum(webhook_changes)::bigint AS webhook_changes
    FROM wanted w JOIN stream_hours h ON h.stream_id = w.id AND h.hour > %(since)s GROUP BY h.stream_id
), arrived AS (
    SELECT h.connection_id, sum(deliveries)::bigint AS deliveries
    FROM homes w JOIN connection_hours h ON h.connection_id = w.connection_id AND h.hour > %(since)s
    GROUP BY h.connection_id
), refused AS (
    SELECT h.connection_id, sum(count)::bigint AS rejected
    FROM homes w JOIN rejections h ON h.connection_id = w.connection_id AND h.hour > %(since)s
    GROUP BY h.connection_id
), pending AS (
    SELECT d.connection_id, count(*) AS n
    FROM homes w JOIN deliveries d ON d.connection_id = w.connection_id AND d.state = 'pending'
    GROUP BY d.connection_id
), dead AS (
    SELECT d.connection_id, count(*) AS n
    FROM homes w JOIN deliveries d ON d.connection_id = w.connection_id AND d.state = 'dead'
    GROUP BY d.connection_id
)
SELECT s.*, c.key AS connection_key, c.connector, c.tenant, c.paused_at AS connection_paused_at, c.paused_reason,
    c.needs_attention, a.last_at AS last_delivery_at, r.id AS run_id, r.state AS run_state, r.due_at AS run_due_at,
    day.*, arrived.deliveries, refused.rejected, pending.n AS pending, dead.n AS dead
FROM wanted w
JOIN streams s ON s.id = w.id
JOIN connections c ON c.id = w.connection_id
LEFT JOIN runs r ON r.stream_id = s.id AND r.window_id IS NULL AND r.state IN ('scheduled', 'running', 'retrying')
LEFT JOIN arrivals a ON a.connection_id = w.connection_id
LEFT JOIN day ON day.stream_id = w.id
LEFT JOIN arrived ON arrived.connection_id = w.connection_id
LEFT JOIN refused ON refused.connection_id = w.connection_id
LEFT JOIN pending ON pending.connection_id = w.connection_id
LEFT JOIN dead ON dead.connection_id = w.connection_id
ORDER BY c.key, s.key, s.partition;
