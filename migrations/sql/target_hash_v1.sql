-- The hash of a set of devices: the SHA-256 (hex) of their ids in byte order, joined by newlines; for an empty set,
-- that of the empty string.
CREATE FUNCTION target_hash(device_ids text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT encode(sha256(convert_to(coalesce(string_agg(id, E'\n' ORDER BY id COLLATE "C"), ''), 'UTF8')), 'hex')
    FROM unnest(device_ids) AS chosen(id)
$$;
