-- name: rules
-- All rules, oldest first.
SELECT * FROM alert_rules ORDER BY id;

-- name: count_rules
-- How many there are.
SELECT count(*) AS count FROM alert_rules;

-- name: add_rule
-- Store a rule.
INSERT INTO alert_rules (conditions, connection, stream, threshold, hold_seconds, targets, created_at)
VALUES (%(conditions)s, %(connection)s, %(stream)s, %(threshold)s, %(hold_seconds)s, %(targets)s, %(at)s) RETURNING *;

-- name: remove_rule
-- Remove a rule, and by cascade its alerts.
DELETE FROM alert_rules WHERE id = %(rule_id)s;

-- name: mutes
-- The mutes that hold.
SELECT * FROM mutes WHERE until IS NULL OR until > %(at)s ORDER BY id DESC;

-- name: forget_mutes
-- Those that are over.
DELETE FROM mutes WHERE until <= %(at)s;

-- name: count_mutes
-- How many there are.
SELECT count(*) AS count FROM mutes;

-- name: add_mute
-- Mute a stream or a connection.
INSERT INTO mutes (connection, stream, until, reason, actor, created_at)
VALUES (%(connection)s, %(stream)s, %(until)s, %(reason)s, %(actor)s, %(at)s) RETURNING *;

-- name: remove_mute
-- Take a mute back.
DELETE FROM mutes WHERE id = %(mute_id)s;

-- name: standing
-- Alerts that are not resolved.
SELECT * FROM alerts WHERE resolved_at IS NULL ORDER BY id;

-- name: past
-- Alerts that were told, and are resolved.
SELECT * FROM alerts WHERE resolved_at IS NOT NULL AND fired_at IS NOT NULL ORDER BY resolved_at DESC, id DESC LIMIT %(limit)s;

-- name: begin
-- An alert that was not there.
INSERT INTO alerts (rule_id, condition, connection, stream, partition, sentence, began_at)
SELECT id, %(condition)s::text, %(connection)s::text, %(stream)s::text, %(partition)s::text, %(sentence)s::text, %(at)s::bigint FROM alert_rules WHERE id = %(rule_id)s
ON CONFLICT DO NOTHING;

-- name: fire
-- An alert that somebody is told of, once.
UPDATE alerts SET fired_at = %(at)s, sentence = %(sentence)s
WHERE id = %(alert_id)s AND fired_at IS NULL AND resolved_at IS NULL;

-- name: resolve
-- An alert that is over, once.
UPDATE alerts SET resolved_at = %(at)s, sentence = %(sentence)s WHERE id = %(alert_id)s AND resolved_at IS NULL;

-- name: notify
-- A message to one target.
INSERT INTO notifications (alert_id, target, body, created_at, due_at)
VALUES (%(alert_id)s, %(target)s, %(body)s, %(at)s, %(at)s) RETURNING id;

-- name: forget_alerts
-- Alerts that are over for long enough, or were over before anybody was told.
DELETE FROM alerts WHERE resolved_at IS NOT NULL AND (resolved_at < %(before)s OR fired_at IS NULL);

-- name: forget_notifications
-- What was sent long ago.
DELETE FROM notifications WHERE created_at < %(before)s AND (sent_at IS NOT NULL OR given_up_at IS NOT NULL);

-- name: due
-- Messages that are due and that nobody holds.
SELECT id FROM notifications
WHERE sent_at IS NULL AND given_up_at IS NULL AND due_at <= %(at)s AND coalesce(lease_until, 0) <= %(at)s
ORDER BY due_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED;

-- name: claim
-- Hand a message to one attempt.
UPDATE notifications SET lease_until = %(lease_until)s, attempts = attempts + 1 WHERE id = %(id)s RETURNING *;

-- name: finish
-- What became of an attempt.
UPDATE notifications SET lease_until = NULL, error = %(error)s, sent_at = %(sent_at)s, given_up_at = %(given_up_at)s,
    due_at = coalesce(%(due_at)s::bigint, due_at)
WHERE id = %(id)s AND sent_at IS NULL;

-- name: notifications
-- Messages, newest first.
SELECT * FROM notifications ORDER BY id DESC LIMIT %(limit)s;

-- name: one_change
-- Whoever adds waits for whoever adds: what is counted stays so.
LOCK TABLE alert_rules, mutes IN SHARE ROW EXCLUSIVE MODE;
