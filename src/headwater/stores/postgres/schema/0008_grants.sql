-- Who may change the OAuth token of a connection, and authorizations that were begun.
CREATE TABLE grants (
    connection_id bigint PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
    epoch bigint NOT NULL,
    leased_until bigint
);
CREATE TABLE authorizations (
    state bytea PRIMARY KEY,
    connection_id bigint NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    sealed text NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX authorizations_expires ON authorizations (expires_at);
