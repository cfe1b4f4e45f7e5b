-- People who sign in. A token is kept as its SHA-256, a password as its argon2id hash ('' until there is one).
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    email TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    password TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    disabled_at INTEGER,
    last_login_at INTEGER
) STRICT;

CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL UNIQUE,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    created_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    address TEXT NOT NULL,
    agent TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_account ON sessions (account_id, seen_at);

-- Links that were not used yet; without an account, they are for the first admin.
CREATE TABLE invitations (
    hash BLOB PRIMARY KEY,
    account_id INTEGER REFERENCES accounts (id),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Attempts to sign in, by account and by address, since the first of a span.
CREATE TABLE logins (
    subject TEXT PRIMARY KEY,
    since INTEGER NOT NULL,
    attempts INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX logins_since ON logins (since);
