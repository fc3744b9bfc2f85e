-- The release build of a package that a device is offered. No row: the token is not valid. `build_id` null: no build is
-- offered.
WITH device AS MATERIALIZED (
    SELECT * FROM authenticate_device_v1(%(token_id)s)
), offered AS MATERIALIZED (
    SELECT id AS device_id, offered_build_v1(id, %(package_name)s, %(interval_seconds)s) AS build_id FROM device
)
SELECT device.id AS device_id, device.deleted_at IS NOT NULL AS deleted, v.id AS build_id, v.package_name,
    v.version_name, v.version_code, v.build_type, v.file_size, v.sha256, v.signer_fingerprint, v.file_path,
    v.object_version, v.wifi_only, v.must_install, v.staged_rollout_percent, v.notes
FROM device CROSS JOIN offered LEFT JOIN apk_versions v ON v.id = offered.build_id
