-- The bucket, 0 to 99, of a device for a build: the first 32 bits of a SHA-256, modulo 100. It is stable, and different
-- for every build. A rollout reaches the buckets below its percentage, so a higher percentage only adds devices.
CREATE FUNCTION rollout_bucket_v1(p_build_id integer, p_device_id text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
SELECT mod(('x' || left(encode(sha256(convert_to(p_build_id || ':' || p_device_id, 'UTF8')), 'hex'), 8))::bit(32)::bigint,
    100)::integer
$$;
