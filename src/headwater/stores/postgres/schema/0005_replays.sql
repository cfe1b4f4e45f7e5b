-- When a delivery was replayed last, and what it was before: how far a replay has come, and putting back what waits.
ALTER TABLE deliveries ADD COLUMN replayed_at bigint;
ALTER TABLE deliveries ADD COLUMN replayed_from text CHECK (replayed_from IN ('done', 'ignored', 'dead'));
CREATE INDEX deliveries_replayed ON deliveries (replayed_at) WHERE replayed_at IS NOT NULL;
