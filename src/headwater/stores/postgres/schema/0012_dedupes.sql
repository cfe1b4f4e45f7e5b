-- A dedupe key is the provider's id itself: ids that grow with time come to one end of their index, where a hash of them
-- comes to a page of its own. Keys are forgotten with their deliveries, which hold them too, without an index of their own.
UPDATE deliveries SET dedupe = convert_to(provider_id, 'UTF8');
UPDATE dedupes SET dedupe = d.dedupe FROM deliveries d WHERE d.id = dedupes.delivery_id;
DROP INDEX dedupes_delivery;
