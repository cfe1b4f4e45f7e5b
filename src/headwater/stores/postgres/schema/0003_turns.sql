-- What waits of a connection, in the order in which it is admitted; and which streams their provider silenced.
CREATE INDEX runs_turn ON runs (connection_id, priority, due_at, id) WHERE state IN ('scheduled', 'retrying');
CREATE INDEX streams_blocked ON streams (blocked_until) WHERE blocked_until IS NOT NULL;
