-- Declares a build: reserves its package, version code and build type for its checksum. No row: another build already
-- has them.
INSERT INTO apk_versions AS v (package_name, version_name, version_code, build_type, file_size, sha256,
    signer_fingerprint, source, ci_run_id, git_sha, notes, uploaded_by, file_path, storage_url, wifi_only, must_install)
VALUES (%(package_name)s, %(version_name)s, %(version_code)s, %(build_type)s, %(file_size)s, %(sha256)s,
    %(signer_fingerprint)s, %(source)s, %(ci_run_id)s, %(git_sha)s, %(notes)s, %(by)s, %(key)s, %(url)s,
    %(wifi_only)s, %(must_install)s)
ON CONFLICT (package_name, version_code, build_type)
    WHERE state IN ('declared', 'awaiting_signer', 'published') DO NOTHING
RETURNING v.id AS build_id, v.*
