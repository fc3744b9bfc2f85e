-- Publishes the builds of a package that await one of the signers `wanted`, and refuses those that await another
-- signer; each build's signature was verified when it was completed. Returns one row per decided build.
UPDATE apk_versions SET
    state = CASE WHEN signer_fingerprint = ANY(%(wanted)s::text[]) THEN 'published' ELSE 'refused' END,
    published_at = CASE WHEN signer_fingerprint = ANY(%(wanted)s::text[]) THEN clock_timestamp() END,
    object_version = CASE WHEN signer_fingerprint = ANY(%(wanted)s::text[]) THEN object_version END,
    refusal = CASE WHEN NOT signer_fingerprint = ANY(%(wanted)s::text[]) THEN
        'signer: expected one of the package''s pinned signers ' || %(names)s || ', found ' || signer_fingerprint END,
    audit = audit || jsonb_build_object('event',
        CASE WHEN signer_fingerprint = ANY(%(wanted)s::text[]) THEN 'publish' ELSE 'refuse' END,
        'by', %(by)s, 'at', clock_timestamp())
WHERE package_name = %(package_name)s AND state = 'awaiting_signer'
RETURNING id, state
