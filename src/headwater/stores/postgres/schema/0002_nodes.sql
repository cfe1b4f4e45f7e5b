-- The processes that serve this database. `seen_at` is the server's own time, so that a node with a wrong clock is
-- neither young nor old; `clock_offset` is how far the node's clock was from it.
CREATE TABLE nodes (
    id text PRIMARY KEY,
    host text NOT NULL,
    pid bigint NOT NULL,
    url text NOT NULL,
    roles text NOT NULL,
    slots integer NOT NULL,
    runs integer NOT NULL,
    started_at bigint NOT NULL,
    seen_at bigint NOT NULL,
    clock_offset bigint NOT NULL
);
