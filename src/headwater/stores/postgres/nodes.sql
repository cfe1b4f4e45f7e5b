-- name: clock
-- What the server's clock says, in microseconds.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;

-- name: note
-- The node is here now, by the server's clock.
INSERT INTO nodes (id, host, pid, url, roles, slots, runs, started_at, seen_at, clock_offset)
SELECT %(id)s, %(host)s, %(pid)s, %(url)s, %(roles)s, %(slots)s, %(runs)s, %(started_at)s, now.micros,
    %(at)s - now.micros
FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS micros) now
ON CONFLICT (id) DO UPDATE SET url = excluded.url, roles = excluded.roles, slots = excluded.slots,
    runs = excluded.runs, seen_at = excluded.seen_at, clock_offset = excluded.clock_offset;

-- name: forget
-- The node is gone.
DELETE FROM nodes WHERE id = %(id)s;

-- name: forget_silent
-- Nodes that went without a word, long ago.
DELETE FROM nodes WHERE seen_at < (extract(epoch FROM clock_timestamp()) - %(seconds)s) * 1000000;

-- name: nodes
-- The nodes, by host and age, with the time since each was seen.
SELECT *, extract(epoch FROM clock_timestamp()) * 1000000 - seen_at AS silent FROM nodes ORDER BY host, started_at, id;

-- name: leases
-- The runs that somebody holds, and those whose holder let them lapse.
SELECT count(*) FILTER (WHERE lease_until > %(at)s) AS held, count(*) FILTER (WHERE lease_until <= %(at)s) AS lapsed
FROM runs WHERE state = 'running';
