-- What operators want to be told, what stands, what was sent, and what is muted.
CREATE TABLE alert_rules (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conditions text NOT NULL,
    connection text,
    stream text,
    threshold text,
    hold_seconds bigint NOT NULL,
    targets text NOT NULL,
    created_at bigint NOT NULL
);
CREATE TABLE alerts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule_id bigint NOT NULL REFERENCES alert_rules (id) ON DELETE CASCADE,
    condition text NOT NULL,
    connection text NOT NULL,
    stream text NOT NULL,
    partition text NOT NULL,
    sentence text NOT NULL,
    began_at bigint NOT NULL,
    fired_at bigint,
    resolved_at bigint
);
CREATE UNIQUE INDEX alerts_standing ON alerts (rule_id, condition, connection, stream, partition) WHERE resolved_at IS NULL;
CREATE INDEX alerts_resolved ON alerts (resolved_at) WHERE resolved_at IS NOT NULL;
CREATE TABLE notifications (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id bigint,
    target text NOT NULL,
    body text NOT NULL,
    created_at bigint NOT NULL,
    due_at bigint NOT NULL,
    lease_until bigint,
    attempts bigint NOT NULL DEFAULT 0,
    sent_at bigint,
    given_up_at bigint,
    error text
);
CREATE INDEX notifications_due ON notifications (due_at) WHERE sent_at IS NULL AND given_up_at IS NULL;
CREATE INDEX notifications_created ON notifications (created_at);
CREATE TABLE mutes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection text NOT NULL,
    stream text NOT NULL,
    until bigint,
    reason text NOT NULL,
    actor text NOT NULL,
    created_at bigint NOT NULL
);
