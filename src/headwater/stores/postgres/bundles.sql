-- name: insert_bundle
-- Store a bundle, unless it is there.
INSERT INTO bundles (hash, connector, version, outline, archive, archive_bytes, created_at, actor)
VALUES (%(hash)s, %(connector)s, %(version)s, %(outline)s, %(archive)s, %(archive_bytes)s, %(created_at)s, %(actor)s)
ON CONFLICT (hash) DO NOTHING;

-- name: bundle
-- One bundle, whole.
SELECT * FROM bundles WHERE hash = %(hash)s;

-- name: bundles
-- Bundles without their archives, newest first.
SELECT hash, connector, version, outline, archive_bytes, created_at, actor FROM bundles
WHERE (%(connector)s::text IS NULL OR connector = %(connector)s)
    AND (%(after)s::text IS NULL OR number < (SELECT number FROM bundles WHERE hash = %(after)s))
ORDER BY number DESC LIMIT %(limit)s;

-- name: hold
-- The row that two deploys of a connector both want; made where there is none.
INSERT INTO activations (connector) VALUES (%(connector)s) ON CONFLICT (connector) DO NOTHING;

-- name: active
-- What runs of a connector.
SELECT bundle, deployment_id FROM activations WHERE connector = %(connector)s FOR UPDATE;

-- name: insert_deployment
-- One entry of the history.
INSERT INTO deployments (connector, bundle, version, previous, act, activated_at, actor, plan)
VALUES (%(connector)s, %(hash)s, %(version)s, %(previous)s, %(act)s, %(at)s, %(actor)s, %(plan)s) RETURNING *;

-- name: activate
-- From now on it runs.
INSERT INTO activations (connector, bundle, deployment_id) VALUES (%(connector)s, %(hash)s, %(deployment_id)s)
ON CONFLICT (connector) DO UPDATE SET bundle = excluded.bundle, deployment_id = excluded.deployment_id;

-- name: deployment
-- One entry of the history, by its id.
SELECT * FROM deployments WHERE id = %(deployment_id)s;

-- name: deployments
-- The history, newest first.
SELECT * FROM deployments
WHERE (%(connector)s::text IS NULL OR connector = %(connector)s) AND (%(after)s::bigint IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s;

-- name: active_bundles
-- What runs of each connector.
SELECT connector, bundle FROM activations WHERE bundle IS NOT NULL;
