-- A dedupe key is the provider's id itself: ids that grow with time come to one end of their index, where a hash of them
-- comes to a page of its own.
UPDATE deliveries SET dedupe = CAST(provider_id AS BLOB);
