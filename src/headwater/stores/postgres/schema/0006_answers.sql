-- What requests of the API with an idempotency key were answered; no status: one is under way.
CREATE TABLE answers (
    key bytea PRIMARY KEY,
    fingerprint bytea NOT NULL,
    claimed_at bigint NOT NULL,
    status integer,
    location text,
    body bytea
);
CREATE INDEX answers_claimed ON answers (claimed_at);
