-- name: hold
-- Wait for everybody who commits to a connection: what they looked up must not go before they are through.
SELECT id FROM connections WHERE id = %(connection_id)s FOR UPDATE;

-- name: keys
-- Some idempotency keys of a connection.
DELETE FROM emission_keys WHERE connection_id = %(connection_id)s AND key IN (
    SELECT key FROM emission_keys WHERE connection_id = %(connection_id)s LIMIT %(limit)s);

-- name: records
-- The records that go next, with every version in their linked lists; how many.
WITH RECURSIVE doomed AS MATERIALIZED (
    SELECT type_id, source_id, latest FROM records
    WHERE connection_id = %(connection_id)s
        AND (%(type)s::text IS NULL OR type_id = (SELECT id FROM types WHERE name = %(type)s))
    ORDER BY type_id, source_id LIMIT %(limit)s
), history (sequence) AS (
    SELECT latest FROM doomed
    UNION ALL
    SELECT v.previous FROM history h JOIN versions v ON v.sequence = h.sequence WHERE v.previous IS NOT NULL
), without_versions AS (
    DELETE FROM versions WHERE sequence IN (SELECT sequence FROM history)
), gone AS (
    DELETE FROM records r USING doomed d
    WHERE r.connection_id = %(connection_id)s AND r.type_id = d.type_id AND r.source_id = d.source_id
    RETURNING r.type_id, r.deleted
), fewer AS (
    UPDATE populations p SET live = p.live - g.count
    FROM (SELECT type_id, count(*) AS count FROM gone WHERE NOT deleted GROUP BY type_id) g
    WHERE p.connection_id = %(connection_id)s AND p.type_id = g.type_id
)
SELECT count(*) FROM gone;
