-- A version says whether it came under the key that names its object: its record is renewed from it. Of older versions
-- nobody asks.
ALTER TABLE versions ADD COLUMN by_object INTEGER NOT NULL DEFAULT 1;

-- A connector's versions, named by the hash of their content, and which of them runs.
CREATE TABLE bundles (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    hash TEXT NOT NULL UNIQUE,
    connector TEXT NOT NULL,
    version TEXT NOT NULL,
    outline TEXT NOT NULL,
    archive BLOB NOT NULL,
    archive_bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    actor TEXT NOT NULL
) STRICT;

CREATE TABLE deployments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    connector TEXT NOT NULL,
    bundle TEXT NOT NULL REFERENCES bundles (hash),
    version TEXT NOT NULL,
    previous TEXT,
    act TEXT NOT NULL,
    activated_at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    plan TEXT NOT NULL
) STRICT;
CREATE INDEX deployments_connector ON deployments (connector, id);

-- The one row that a deploy compares and sets.
CREATE TABLE activations (
    connector TEXT PRIMARY KEY,
    bundle TEXT NOT NULL REFERENCES bundles (hash),
    deployment_id INTEGER NOT NULL REFERENCES deployments (id)
) STRICT, WITHOUT ROWID;
