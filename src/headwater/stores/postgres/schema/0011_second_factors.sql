-- A second factor of an account: its sealed secret, since when it is asked for, and the last step whose code counted.
ALTER TABLE accounts ADD COLUMN factor text NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN factor_at bigint;
ALTER TABLE accounts ADD COLUMN factor_step bigint NOT NULL DEFAULT 0;
CREATE TABLE recovery_codes (
    account_id bigint NOT NULL REFERENCES accounts (id),
    hash bytea NOT NULL,
    PRIMARY KEY (account_id, hash)
);
