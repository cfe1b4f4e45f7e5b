-- What operators want to be told, what stands, what was sent, and what is muted.
CREATE TABLE alert_rules (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conditions TEXT NOT NULL,
    connection TEXT,
    stream TEXT,
    threshold TEXT,
    hold_seconds INTEGER NOT NULL,
    targets TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE alerts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rule_id INTEGER NOT NULL REFERENCES alert_rules (id) ON DELETE CASCADE,
    condition TEXT NOT NULL,
    connection TEXT NOT NULL,
    stream TEXT NOT NULL,
    partition TEXT NOT NULL,
    sentence TEXT NOT NULL,
    began_at INTEGER NOT NULL,
    fired_at INTEGER,
    resolved_at INTEGER
) STRICT;
CREATE UNIQUE INDEX alerts_standing ON alerts (rule_id, condition, connection, stream, partition) WHERE resolved_at IS NULL;
CREATE INDEX alerts_resolved ON alerts (resolved_at) WHERE resolved_at IS NOT NULL;
CREATE TABLE notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id INTEGER,
    target TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    lease_until INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    sent_at INTEGER,
    given_up_at INTEGER,
    error TEXT
) STRICT;
CREATE INDEX notifications_due ON notifications (due_at) WHERE sent_at IS NULL AND given_up_at IS NULL;
CREATE INDEX notifications_created ON notifications (created_at);
CREATE TABLE mutes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    connection TEXT NOT NULL,
    stream TEXT NOT NULL,
    until INTEGER,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
