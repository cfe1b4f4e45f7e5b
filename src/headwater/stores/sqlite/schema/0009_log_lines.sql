-- What routes logged. `stream_id` and `run_id`, or `delivery_id`, say for what.
CREATE TABLE log_lines (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    connection_id INTEGER NOT NULL,
    stream_id INTEGER,
    run_id INTEGER,
    delivery_id INTEGER,
    at INTEGER NOT NULL,
    level INTEGER NOT NULL,
    message TEXT NOT NULL
) STRICT;
CREATE INDEX log_lines_connection ON log_lines (connection_id, id);
CREATE INDEX log_lines_run ON log_lines (run_id, id) WHERE run_id IS NOT NULL;
CREATE INDEX log_lines_delivery ON log_lines (delivery_id, id) WHERE delivery_id IS NOT NULL;
CREATE INDEX log_lines_at ON log_lines (at);
