-- name: insert_bundle
-- Store a bundle, unless it is there.
INSERT INTO bundles (hash, connector, version, outline, archive, archive_bytes, created_at, actor)
VALUES (:hash, :connector, :version, :outline, :archive, :archive_bytes, :created_at, :actor)
ON CONFLICT (hash) DO NOTHING;

-- name: bundle
-- One bundle, whole.
SELECT * FROM bundles WHERE hash = :hash;

-- name: bundles
-- Bundles without their archives, newest first.
SELECT hash, connector, version, outline, archive_bytes, created_at, actor FROM bundles
WHERE (:connector IS NULL OR connector = :connector)
    AND (:after IS NULL OR number < (SELECT number FROM bundles WHERE hash = :after))
ORDER BY number DESC LIMIT :limit;

-- name: active
-- What runs of a connector.
SELECT bundle, deployment_id FROM activations WHERE connector = :connector;

-- name: insert_deployment
-- One entry of the history.
INSERT INTO deployments (connector, bundle, version, previous, act, activated_at, actor, plan)
VALUES (:connector, :hash, :version, :previous, :act, :at, :actor, :plan) RETURNING *;

-- name: activate
-- From now on it runs.
INSERT INTO activations (connector, bundle, deployment_id) VALUES (:connector, :hash, :deployment_id)
ON CONFLICT (connector) DO UPDATE SET bundle = excluded.bundle, deployment_id = excluded.deployment_id;

-- name: deployment
-- One entry of the history, by its id.
SELECT * FROM deployments WHERE id = :deployment_id;

-- name: deployments
-- The history, newest first.
SELECT * FROM deployments
WHERE (:connector IS NULL OR connector = :connector) AND (:after IS NULL OR id < :after)
ORDER BY id DESC LIMIT :limit;

-- name: active_bundles
-- What runs of each connector.
SELECT connector, bundle FROM activations WHERE bundle IS NOT NULL;
