-- Instants are integer microseconds since 1970 (UTC). Hashes are 16 bytes. Small numbers stand for text keys in the
-- tables that grow with the data.

CREATE TABLE types (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE connector_versions (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE connections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    connector TEXT NOT NULL,
    tenant TEXT,
    endpoint_id TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    paused_at INTEGER,
    paused_reason TEXT,
    needs_attention INTEGER NOT NULL DEFAULT 0,
    last_delivery_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE secrets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    connection_id INTEGER NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    field TEXT NOT NULL,
    ciphertext TEXT NOT NULL,
    expires_at INTEGER
) STRICT;
CREATE INDEX secrets_connection ON secrets (connection_id, field, id);

-- One row per connection, stream and partition: its schedule, checkpoint, fencing token and health.
CREATE TABLE streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    connection_id INTEGER NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    partition TEXT NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('poll', 'webhook', 'backfill')),
    schedule TEXT,
    timezone TEXT NOT NULL,
    expect_within_seconds INTEGER,
    declared INTEGER NOT NULL,
    registered_at INTEGER NOT NULL,
    next_tick_at INTEGER,
    paused_at INTEGER,
    blocked_until INTEGER,
    epoch INTEGER NOT NULL DEFAULT 0,
    cursor TEXT,
    checkpoint_at INTEGER,
    last_attempt_at INTEGER,
    last_success_at INTEGER,
    last_record_at INTEGER,
    last_error TEXT,
    last_error_code TEXT,
    consecutive_failures INTEGER NOT NULL DEFAULT 0,
    skipped_ticks INTEGER NOT NULL DEFAULT 0,
    UNIQUE (connection_id, key, partition)
) STRICT;
CREATE INDEX streams_due ON streams (next_tick_at)
    WHERE next_tick_at IS NOT NULL AND declared = 1 AND paused_at IS NULL;

-- What a stream did within each hour: its figures of a day are 24 rows, whatever the traffic.
CREATE TABLE stream_hours (
    stream_id INTEGER NOT NULL REFERENCES streams (id) ON DELETE CASCADE,
    hour INTEGER NOT NULL,
    runs INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL DEFAULT 0,
    updated INTEGER NOT NULL DEFAULT 0,
    unchanged INTEGER NOT NULL DEFAULT 0,
    duplicate INTEGER NOT NULL DEFAULT 0,
    stale INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    quarantined INTEGER NOT NULL DEFAULT 0,
    poll_changes INTEGER NOT NULL DEFAULT 0,
    webhook_changes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (stream_id, hour)
) STRICT, WITHOUT ROWID;

CREATE TABLE backfills (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    stream_id INTEGER NOT NULL REFERENCES streams (id) ON DELETE CASCADE,
    span_start INTEGER NOT NULL,
    span_end INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'paused', 'succeeded', 'failed', 'cancelled')),
    created_at INTEGER NOT NULL,
    finished_at INTEGER
) STRICT;
CREATE INDEX backfills_stream ON backfills (stream_id);
CREATE INDEX backfills_running ON backfills (id) WHERE state = 'running';

-- A window has its own checkpoint and fencing token, so that it runs beside the live stream.
CREATE TABLE windows (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    backfill_id INTEGER NOT NULL REFERENCES backfills (id) ON DELETE CASCADE,
    window_start INTEGER NOT NULL,
    window_end INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'todo' CHECK (state IN ('todo', 'running', 'done', 'failed', 'cancelled')),
    epoch INTEGER NOT NULL DEFAULT 0,
    run_id INTEGER,
    cursor TEXT,
    checkpoint_at INTEGER,
    pages INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL DEFAULT 0,
    updated INTEGER NOT NULL DEFAULT 0,
    unchanged INTEGER NOT NULL DEFAULT 0,
    duplicate INTEGER NOT NULL DEFAULT 0,
    stale INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    quarantined INTEGER NOT NULL DEFAULT 0,
    started_at INTEGER,
    finished_at INTEGER,
    error TEXT,
    attempts INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX windows_backfill ON windows (backfill_id, window_start);
CREATE INDEX windows_todo ON windows (backfill_id, window_start) WHERE state = 'todo';

CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    connection_id INTEGER NOT NULL,
    stream_id INTEGER NOT NULL REFERENCES streams (id) ON DELETE CASCADE,
    backfill_id INTEGER,
    window_id INTEGER,
    trigger TEXT NOT NULL CHECK (trigger IN ('tick', 'backfill', 'operator')),
    state TEXT NOT NULL
        CHECK (state IN ('scheduled', 'running', 'retrying', 'succeeded', 'failed', 'cancelled')),
    priority INTEGER NOT NULL,
    epoch INTEGER NOT NULL DEFAULT -1, -- that of no stream: the admission raises one
    attempt INTEGER NOT NULL DEFAULT 0,
    scheduled_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    lease_until INTEGER,
    started_at INTEGER,
    finished_at INTEGER,
    pages INTEGER NOT NULL DEFAULT 0,
    requests INTEGER NOT NULL DEFAULT 0,
    has_more INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL DEFAULT 0,
    updated INTEGER NOT NULL DEFAULT 0,
    unchanged INTEGER NOT NULL DEFAULT 0,
    duplicate INTEGER NOT NULL DEFAULT 0,
    stale INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    quarantined INTEGER NOT NULL DEFAULT 0,
    live_deleted INTEGER NOT NULL DEFAULT 0,
    cursor_before TEXT,
    cursor_after TEXT,
    window_start INTEGER,
    window_end INTEGER,
    pages_limit INTEGER,
    allow_deletes INTEGER NOT NULL DEFAULT 0,
    connector_version TEXT NOT NULL DEFAULT '',
    error_code TEXT,
    error TEXT,
    traceback TEXT
) STRICT;
CREATE INDEX runs_stream ON runs (stream_id, scheduled_at);
CREATE INDEX runs_connection ON runs (connection_id);
CREATE INDEX runs_backfill ON runs (backfill_id) WHERE backfill_id IS NOT NULL;
CREATE INDEX runs_waiting ON runs (due_at) WHERE state IN ('scheduled', 'retrying');
CREATE INDEX runs_running ON runs (connection_id, lease_until) WHERE state = 'running';
CREATE INDEX runs_finished ON runs (finished_at) WHERE state IN ('succeeded', 'failed', 'cancelled');
-- Invariant 9: at most one run of a stream, and one of a window, is under way.
CREATE UNIQUE INDEX runs_live_stream ON runs (stream_id)
    WHERE window_id IS NULL AND state IN ('scheduled', 'running', 'retrying');
CREATE UNIQUE INDEX runs_live_window ON runs (window_id)
    WHERE window_id IS NOT NULL AND state IN ('scheduled', 'running', 'retrying');

CREATE TABLE pages (
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    cursor TEXT,
    has_more INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    unchanged INTEGER NOT NULL,
    duplicate INTEGER NOT NULL,
    stale INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    quarantined INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    committed_at INTEGER NOT NULL,
    PRIMARY KEY (run_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE requests (
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    method TEXT NOT NULL,
    url TEXT NOT NULL,
    status INTEGER,
    milliseconds INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (run_id, number)
) STRICT, WITHOUT ROWID;

-- `sequence` is the current version, `latest` the newest one, stale ones included; `version` is the latest's number.
-- `by_object` tells that the current version came under the key that names the object.
CREATE TABLE records (
    connection_id INTEGER NOT NULL,
    type_id INTEGER NOT NULL,
    source_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    latest INTEGER NOT NULL,
    version INTEGER NOT NULL,
    hash BLOB NOT NULL,
    as_of INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    by_object INTEGER NOT NULL,
    PRIMARY KEY (connection_id, type_id, source_id)
) STRICT, WITHOUT ROWID;

-- One row per commit that made versions; `id` is the first sequence of its range.
CREATE TABLE origins (
    id INTEGER PRIMARY KEY,
    last_sequence INTEGER NOT NULL,
    connection_id INTEGER NOT NULL,
    origin TEXT NOT NULL,
    run_id INTEGER,
    page INTEGER,
    delivery_id INTEGER,
    connector_version_id INTEGER NOT NULL,
    observed_at INTEGER NOT NULL
) STRICT;
CREATE INDEX origins_delivery ON origins (delivery_id) WHERE delivery_id IS NOT NULL;
CREATE INDEX origins_connection ON origins (connection_id);

-- Append-only: `sequence` is the change feed. `previous` is the version before of the same record: its history is a
-- linked list from the record's `latest`, and needs no second index. AUTOINCREMENT: no sequence is ever used twice.
CREATE TABLE versions (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    origin_id INTEGER NOT NULL,
    connection_id INTEGER NOT NULL,
    type_id INTEGER NOT NULL,
    stream_id INTEGER NOT NULL,
    source_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    stale INTEGER NOT NULL,
    previous INTEGER,
    as_of INTEGER NOT NULL,
    hash BLOB NOT NULL,
    payload BLOB NOT NULL
) STRICT;

-- Invariant 3: a key is stored in the transaction of its work. It lives as long as the delivery that brought it.
CREATE TABLE emission_keys (
    connection_id INTEGER NOT NULL,
    key BLOB NOT NULL,
    hash BLOB NOT NULL,
    deleted INTEGER NOT NULL,
    delivery_id INTEGER,
    PRIMARY KEY (connection_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX emission_keys_delivery ON emission_keys (delivery_id) WHERE delivery_id IS NOT NULL;

CREATE TABLE populations (
    connection_id INTEGER NOT NULL,
    type_id INTEGER NOT NULL,
    live INTEGER NOT NULL,
    PRIMARY KEY (connection_id, type_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    connection_id INTEGER NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    stream_id INTEGER NOT NULL REFERENCES streams (id) ON DELETE CASCADE,
    type TEXT NOT NULL,
    source_id TEXT,
    idempotency_key TEXT NOT NULL,
    payload BLOB NOT NULL,
    reason TEXT NOT NULL,
    as_of INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    run_id INTEGER,
    page INTEGER,
    delivery_id INTEGER,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'released', 'dropped'))
) STRICT;
CREATE INDEX quarantine_connection ON quarantine (connection_id);
-- The same broken record, found again by every poll, waits once.
CREATE UNIQUE INDEX quarantine_waiting ON quarantine (stream_id, type, idempotency_key) WHERE state = 'waiting';

CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    connection_id INTEGER NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    dedupe BLOB NOT NULL,
    provider_id TEXT NOT NULL,
    event_type TEXT,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
    ignored INTEGER NOT NULL DEFAULT 0,
    received_at INTEGER NOT NULL,
    due_at INTEGER,
    lease_until INTEGER,
    ready_at INTEGER GENERATED ALWAYS AS (max(due_at, coalesce(lease_until, due_at))) VIRTUAL,
    finished_at INTEGER,
    epoch INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    duplicates INTEGER NOT NULL DEFAULT 0,
    last_duplicate_at INTEGER,
    body_bytes INTEGER NOT NULL,
    created INTEGER NOT NULL DEFAULT 0,
    updated INTEGER NOT NULL DEFAULT 0,
    unchanged INTEGER NOT NULL DEFAULT 0,
    duplicate INTEGER NOT NULL DEFAULT 0,
    stale INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    quarantined INTEGER NOT NULL DEFAULT 0,
    error_code TEXT,
    error TEXT,
    traceback TEXT,
    UNIQUE (connection_id, dedupe)
) STRICT;
-- Neither what waits for its retry, nor what is claimed, nor what belongs to a paused connection is in a claim's way.
CREATE INDEX deliveries_ready ON deliveries (connection_id, ready_at) WHERE state = 'pending';
CREATE INDEX deliveries_waiting ON deliveries (connection_id, id) WHERE state = 'pending';
CREATE INDEX deliveries_dead ON deliveries (connection_id, id) WHERE state = 'dead';
CREATE INDEX deliveries_finished ON deliveries (finished_at) WHERE state IN ('done', 'dead');

-- Apart from `deliveries`, so that a change of state does not write the body again.
CREATE TABLE bodies (
    delivery_id INTEGER PRIMARY KEY,
    headers BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE connection_hours (
    connection_id INTEGER NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    hour INTEGER NOT NULL,
    deliveries INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (connection_id, hour)
) STRICT, WITHOUT ROWID;

CREATE TABLE rejections (
    connection_id INTEGER NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    hour INTEGER NOT NULL,
    reason TEXT NOT NULL,
    count INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    sample TEXT NOT NULL,
    PRIMARY KEY (connection_id, hour, reason)
) STRICT, WITHOUT ROWID;

CREATE TABLE sinks (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    moved_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    act TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    tenant TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    last_used_at INTEGER
) STRICT;
