-- name: accounts
-- All accounts, by email.
SELECT * FROM accounts ORDER BY email;

-- name: has_account
-- Whether there is any.
SELECT 1 FROM accounts LIMIT 1;

-- name: count_accounts
-- How many there are.
SELECT count(*) FROM accounts;

-- name: account
-- The account of an email.
SELECT * FROM accounts WHERE email = :email;

-- name: account_by_id
-- One account.
SELECT * FROM accounts WHERE id = :account_id;

-- name: insert_account
-- Store an account.
INSERT INTO accounts (email, name, role, password, created_at)
VALUES (:email, :name, :role, :password, :at) RETURNING *;

-- name: other_admin
-- Whether another admin is enabled and has a password.
SELECT 1 FROM accounts
WHERE role = 'admin' AND disabled_at IS NULL AND password <> '' AND id <> :account_id LIMIT 1;

-- name: change_account
-- Set what an operator may change of an account.
UPDATE accounts SET role = :role, disabled_at = :disabled_at WHERE id = :account_id RETURNING *;

-- name: set_password
-- Set the hash of a password.
UPDATE accounts SET password = :password WHERE id = :account_id RETURNING *;

-- name: renew_password_hash
-- Swap a hash for another of the same password.
UPDATE accounts SET password = :new WHERE id = :account_id AND password = :old;

-- name: note_login
-- The account signed in.
UPDATE accounts SET last_login_at = :at WHERE id = :account_id AND disabled_at IS NULL;

-- name: insert_session
-- Store a session.
INSERT INTO sessions (hash, account_id, created_at, seen_at, address, agent)
VALUES (:hash, :account_id, :at, :at, :address, :agent) RETURNING *;

-- name: trim_sessions
-- The sessions of an account beyond the newest few.
DELETE FROM sessions WHERE account_id = :account_id AND id NOT IN (
    SELECT id FROM sessions WHERE account_id = :account_id ORDER BY seen_at DESC, id DESC LIMIT :kept
);

-- name: purge_sessions
-- Sessions that nobody can use any more.
DELETE FROM sessions WHERE created_at <= :created_after OR seen_at <= :seen_after;

-- name: session
-- The session of a hash with its account.
SELECT s.id AS session_id, s.account_id, s.created_at AS began_at, s.seen_at, s.address, s.agent, a.*
FROM sessions s JOIN accounts a ON a.id = s.account_id
WHERE s.hash = :hash AND s.created_at > :created_after AND s.seen_at > :seen_after AND a.disabled_at IS NULL;

-- name: note_session
-- A session was used.
UPDATE sessions SET seen_at = :at WHERE id = :session_id AND seen_at < :at;

-- name: sessions
-- The sessions of an account, last used first.
SELECT id, account_id, created_at, seen_at, address, agent FROM sessions
WHERE account_id = :account_id AND created_at > :created_after AND seen_at > :seen_after
ORDER BY seen_at DESC, id DESC;

-- name: end_session
-- End one session of an account.
DELETE FROM sessions WHERE account_id = :account_id AND id = :session_id;

-- name: end_session_of_hash
-- End the session of a hash.
DELETE FROM sessions WHERE hash = :hash;

-- name: end_sessions
-- End the sessions of an account.
DELETE FROM sessions WHERE account_id = :account_id;

-- name: end_other_sessions
-- End the sessions of an account but one.
DELETE FROM sessions WHERE account_id = :account_id AND hash <> :keep;

-- name: login
-- What was counted of a subject in the span.
SELECT attempts, since FROM logins WHERE subject = :subject AND since > :after;

-- name: count_login
-- Count an attempt: in the span under way, or as the first of the next.
INSERT INTO logins (subject, since, attempts) VALUES (:subject, :at, 1)
ON CONFLICT (subject) DO UPDATE SET
    since = CASE WHEN logins.since > :after THEN logins.since ELSE excluded.since END,
    attempts = CASE WHEN logins.since > :after THEN logins.attempts + 1 ELSE 1 END;

-- name: forget_logins
-- Counts of a subject that proved itself.
DELETE FROM logins WHERE subject = :subject;

-- name: purge_logins
-- Counts of spans that are over.
DELETE FROM logins WHERE since <= :after;

-- name: insert_invitation
-- Store an invitation.
INSERT INTO invitations (hash, account_id, expires_at) VALUES (:hash, :account_id, :expires_at);

-- name: end_invitations
-- Take an account's invitations back.
DELETE FROM invitations WHERE account_id = :account_id;

-- name: end_setup
-- There is an admin: nobody else becomes the first.
DELETE FROM invitations WHERE account_id IS NULL;

-- name: purge_invitations
-- Invitations that nobody can accept any more.
DELETE FROM invitations WHERE expires_at <= :at;

-- name: invitation
-- The unexpired invitation of a hash; one for the first admin only while there is none.
SELECT account_id, expires_at FROM invitations
WHERE hash = :hash AND expires_at > :at AND (account_id IS NOT NULL OR NOT EXISTS (SELECT 1 FROM accounts));

-- name: api_keys
-- All keys, newest first.
SELECT * FROM api_keys ORDER BY id DESC;

-- name: revoke_api_key
-- Forget a key.
DELETE FROM api_keys WHERE id = :key_id;

-- name: note_api_key
-- A key was used.
UPDATE api_keys SET last_used_at = :at WHERE id = :key_id;

-- name: begin_factor
-- Keep the sealed secret of a second factor that is not asked for yet.
UPDATE accounts SET factor = :sealed WHERE id = :account_id AND factor_at IS NULL;

-- name: confirm_factor
-- Ask for the second factor from now on.
UPDATE accounts SET factor_at = :at, factor_step = :step
WHERE id = :account_id AND factor_at IS NULL AND factor <> '';

-- name: use_factor_step
-- A code counts once, and none before it any more.
UPDATE accounts SET factor_step = :step WHERE id = :account_id AND factor_step < :step AND factor_at IS NOT NULL;

-- name: remove_factor
-- Ask for no second factor any more.
UPDATE accounts SET factor = '', factor_at = NULL, factor_step = 0 WHERE id = :account_id AND factor <> '';

-- name: replace_factor
-- Swap a sealed secret for the same one under another key.
UPDATE accounts SET factor = :new WHERE id = :account_id AND factor = :old;

-- name: insert_recovery_code
-- Keep the hash of a recovery code.
INSERT INTO recovery_codes (account_id, hash) VALUES (:account_id, :hash);

-- name: use_recovery_code
-- A recovery code is good once.
DELETE FROM recovery_codes WHERE account_id = :account_id AND hash = :hash;

-- name: drop_recovery_codes
-- Those of an account are good no longer.
DELETE FROM recovery_codes WHERE account_id = :account_id;

-- name: count_recovery_codes
-- How many are left.
SELECT count(*) FROM recovery_codes WHERE account_id = :account_id;
