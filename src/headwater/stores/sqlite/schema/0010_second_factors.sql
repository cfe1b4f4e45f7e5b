-- A second factor of an account: its sealed secret, since when it is asked for, and the last step whose code counted.
ALTER TABLE accounts ADD COLUMN factor TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN factor_at INTEGER;
ALTER TABLE accounts ADD COLUMN factor_step INTEGER NOT NULL DEFAULT 0;
CREATE TABLE recovery_codes (
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    hash BLOB NOT NULL,
    PRIMARY KEY (account_id, hash)
) STRICT, WITHOUT ROWID;
