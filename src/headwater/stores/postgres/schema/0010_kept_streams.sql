-- Streams that start nothing, found at each tick without a look at the others.
CREATE INDEX streams_kept ON streams (id) WHERE paused_at IS NOT NULL OR NOT declared;
