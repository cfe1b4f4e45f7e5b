-- What requests of the API with an idempotency key were answered; no status: one is under way.
CREATE TABLE answers (
    key BLOB PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    claimed_at INTEGER NOT NULL,
    status INTEGER,
    location TEXT,
    body BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_claimed ON answers (claimed_at);
