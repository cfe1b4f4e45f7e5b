-- Who may change the OAuth token of a connection, and authorizations that were begun.
CREATE TABLE grants (
    connection_id INTEGER PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
    epoch INTEGER NOT NULL,
    leased_until INTEGER
) STRICT;
CREATE TABLE authorizations (
    state BLOB PRIMARY KEY,
    connection_id INTEGER NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    sealed TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX authorizations_expires ON authorizations (expires_at);
