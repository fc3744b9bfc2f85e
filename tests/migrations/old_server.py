"""A database as the previous server's `create_all` made it, from its published tables, with SQLAlchemy's types.

`create` makes the tables and the stamp; `fill` adds rows of the kinds that were found in the field.
"""

DEVICE_COLUMNS = """
    id varchar NOT NULL, alias varchar NOT NULL, app_version varchar, token_hash varchar NOT NULL, token_id varchar,
    created_at timestamp NOT NULL, last_seen timestamp NOT NULL, last_status text, last_alert_state text,
    fcm_token varchar, last_ping_sent timestamp, last_ping_response timestamp, ping_request_id varchar,
    model varchar, manufacturer varchar, android_version varchar, sdk_int integer, build_id varchar,
    is_device_owner boolean, clipboard_content text, clipboard_updated_at timestamp,
    monitored_package varchar NOT NULL, monitored_app_name varchar NOT NULL, auto_relaunch_enabled boolean NOT NULL,
    PRIMARY KEY (id)"""

TABLES = f"""
CREATE TABLE users (id serial PRIMARY KEY, username varchar NOT NULL UNIQUE, password_hash varchar NOT NULL);
CREATE TABLE devices ({DEVICE_COLUMNS});
CREATE UNIQUE INDEX ix_devices_token_id ON devices (token_id);
CREATE INDEX ix_devices_last_seen ON devices (last_seen);
CREATE INDEX idx_device_status_query ON devices (last_seen);
CREATE INDEX idx_device_token_lookup ON devices (token_id);
CREATE TABLE commands (id serial PRIMARY KEY, request_id varchar NOT NULL UNIQUE,
    device_id varchar NOT NULL REFERENCES devices (id), command_type varchar NOT NULL,
    status varchar NOT NULL, created_at timestamp NOT NULL);
CREATE TABLE enrollment_tokens (id serial PRIMARY KEY, token_id varchar NOT NULL, alias varchar NOT NULL,
    token_hash varchar NOT NULL UNIQUE, scope varchar NOT NULL, issued_by varchar, issued_at timestamp NOT NULL,
    expires_at timestamp NOT NULL, uses_allowed integer NOT NULL, uses_consumed integer NOT NULL,
    last_used_at timestamp, note text, status varchar NOT NULL, device_id varchar, used_at timestamp);
CREATE UNIQUE INDEX ix_enrollment_tokens_token_id ON enrollment_tokens (token_id);
CREATE INDEX ix_enrollment_tokens_alias ON enrollment_tokens (alias);
CREATE INDEX ix_enrollment_tokens_expires_at ON enrollment_tokens (expires_at);
CREATE INDEX idx_enrollment_token_status ON enrollment_tokens (status, expires_at);
CREATE INDEX idx_enrollment_token_lookup ON enrollment_tokens (token_id);
CREATE INDEX idx_enrollment_issued_by ON enrollment_tokens (issued_by, issued_at);
CREATE TABLE apk_versions (id serial PRIMARY KEY, version_name varchar NOT NULL, version_code integer NOT NULL,
    file_path text NOT NULL, file_size integer NOT NULL, package_name varchar NOT NULL, uploaded_at timestamp NOT NULL,
    uploaded_by varchar, is_active boolean NOT NULL, notes text, build_type varchar, ci_run_id varchar,
    git_sha varchar, signer_fingerprint varchar, storage_url text,
    CONSTRAINT uq_package_version UNIQUE (package_name, version_code));
CREATE INDEX idx_apk_version_lookup ON apk_versions (package_name, version_code);
CREATE INDEX idx_apk_build_type ON apk_versions (version_code, build_type);
CREATE TABLE apk_installations (id serial PRIMARY KEY, device_id varchar NOT NULL REFERENCES devices (id),
    apk_version_id integer NOT NULL REFERENCES apk_versions (id), status varchar NOT NULL,
    initiated_at timestamp NOT NULL, completed_at timestamp, download_progress integer, error_message text,
    initiated_by varchar);
CREATE INDEX ix_apk_installations_device_id ON apk_installations (device_id);
CREATE INDEX idx_installation_status ON apk_installations (device_id, status);
CREATE INDEX idx_installation_time ON apk_installations (initiated_at);
CREATE INDEX idx_installation_version_status ON apk_installations (apk_version_id, status);
CREATE TABLE fcm_dispatches (request_id varchar PRIMARY KEY, device_id varchar NOT NULL REFERENCES devices (id),
    action varchar NOT NULL, payload_hash varchar, sent_at timestamp NOT NULL, latency_ms integer,
    fcm_message_id varchar, http_code integer, fcm_status varchar NOT NULL, error_msg text, response_json text,
    retries integer NOT NULL);
CREATE INDEX ix_fcm_dispatches_device_id ON fcm_dispatches (device_id);
CREATE INDEX ix_fcm_dispatches_fcm_message_id ON fcm_dispatches (fcm_message_id);
CREATE INDEX ix_fcm_dispatches_sent_at ON fcm_dispatches (sent_at);
CREATE INDEX idx_fcm_device_sent ON fcm_dispatches (device_id, sent_at);
CREATE INDEX idx_fcm_action_sent ON fcm_dispatches (action, sent_at);
CREATE TABLE apk_download_events (event_id bigserial PRIMARY KEY,
    build_id integer NOT NULL REFERENCES apk_versions (id), source varchar NOT NULL, token_id varchar,
    admin_user varchar, ip varchar, ts timestamp NOT NULL);
CREATE INDEX ix_apk_download_events_build_id ON apk_download_events (build_id);
CREATE INDEX ix_apk_download_events_token_id ON apk_download_events (token_id);
CREATE INDEX ix_apk_download_events_ts ON apk_download_events (ts);
CREATE INDEX idx_apk_download_build_ts ON apk_download_events (build_id, ts);
CREATE INDEX idx_apk_download_token_ts ON apk_download_events (token_id, ts);
CREATE TABLE device_heartbeats (hb_id bigserial PRIMARY KEY, device_id varchar NOT NULL REFERENCES devices (id),
    ts timestamp NOT NULL, ip varchar, status varchar NOT NULL, battery_pct integer, plugged boolean, temp_c integer,
    network_type varchar, signal_dbm integer, uptime_s integer, ram_used_mb integer, unity_pkg_version varchar,
    unity_running boolean, agent_version varchar);
CREATE INDEX ix_device_heartbeats_device_id ON device_heartbeats (device_id);
CREATE INDEX ix_device_heartbeats_ts ON device_heartbeats (ts);
CREATE INDEX idx_heartbeat_device_ts ON device_heartbeats (device_id, ts);
"""

COMPLETION = """
ALTER TABLE fcm_dispatches ADD completed_at timestamp, ADD result varchar, ADD result_message text;
"""

LAST_STATUS = """
CREATE TABLE device_last_status (device_id varchar PRIMARY KEY REFERENCES devices (id), last_ts timestamp NOT NULL,
    battery_pct integer, network_type varchar, unity_running boolean, signal_dbm integer, agent_version varchar,
    ip varchar, status varchar NOT NULL DEFAULT 'ok');
CREATE INDEX idx_last_status_ts ON device_last_status (last_ts);
"""


def create(stamp: str, *, completion: bool, last_status: bool) -> str:
    """SQL that creates the previous server's database at the revision `stamp`."""
    return f"""{TABLES}{COMPLETION if completion else ""}{LAST_STATUS if last_status else ""}
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('{stamp}');
"""


def fill(devices: int, heartbeats_each: int) -> str:
    """SQL for rows. Two of three heartbeats share their 10 seconds with another, every tenth device has its neighbor's
    alias, and a quarter of the dispatches never got a result. The token of device n is `token-n`."""
    return f"""
INSERT INTO users (username, password_hash) VALUES ('admin', 'x');
INSERT INTO devices (id, alias, token_hash, token_id, created_at, last_seen, last_status, is_device_owner,
    clipboard_content, monitored_package, monitored_app_name, auto_relaunch_enabled)
SELECT 'device-' || n, 'kiosk-' || CASE WHEN n % 10 = 1 THEN n - 1 ELSE n END, '$2b$12$' || md5(n::text),
    encode(sha256(convert_to('token-' || n, 'UTF8')), 'hex'), (now() AT TIME ZONE 'UTC') - interval '90 days',
    (now() AT TIME ZONE 'UTC') - n * interval '1 second',
    CASE n % 3 WHEN 0 THEN NULL WHEN 1 THEN '{{"battery": {{"pct": 85.0, "charging": true}}, "app_version": "2.4"}}'
        ELSE 'no json' END,
    true, 'a secret', 'org.zwanoo.android.speedtest', 'Speedtest', false
FROM generate_series(0, {devices - 1}) AS n;
INSERT INTO commands (request_id, device_id, command_type, status, created_at)
SELECT 'c' || n, 'device-' || n, 'ping', 'pending', now() FROM generate_series(0, {devices - 1}) AS n;
INSERT INTO device_heartbeats (device_id, ts, status, battery_pct, temp_c, uptime_s)
SELECT 'device-' || d, date_trunc('minute', now() AT TIME ZONE 'UTC') - h / 3 * interval '10 minutes'
        + h % 3 * interval '2 seconds', 'ok', h % 3, 30, h
FROM generate_series(0, {devices - 1}) AS d, generate_series(0, {heartbeats_each - 1}) AS h;
INSERT INTO fcm_dispatches (request_id, device_id, action, sent_at, fcm_status, retries)
SELECT 'r' || n, 'device-' || n % {devices}, 'ping', (now() AT TIME ZONE 'UTC') - n * interval '1 minute',
    (ARRAY['pending', 'success', 'failed', 'completed'])[n % 4 + 1], 0
FROM generate_series(0, {devices * 4 - 1}) AS n;
INSERT INTO enrollment_tokens (token_id, alias, token_hash, scope, issued_at, expires_at, uses_allowed, uses_consumed,
    status)
SELECT encode(sha256(convert_to('enroll-' || n, 'UTF8')), 'hex'), 'new-' || n, '$2b$12$' || md5(n::text), 'register',
    now() AT TIME ZONE 'UTC', (now() AT TIME ZONE 'UTC') + interval '1 day', 1, n % 3,
    CASE n % 3 WHEN 0 THEN 'active' WHEN 1 THEN 'exhausted' ELSE 'expired' END
FROM generate_series(0, 29) AS n;
INSERT INTO apk_versions (version_name, version_code, file_path, file_size, package_name, uploaded_at, is_active)
SELECT '1.' || n, n, '/apk/' || n, 1000, 'com.nexmdm', now() AT TIME ZONE 'UTC', true FROM generate_series(1, 5) AS n;
INSERT INTO apk_installations (device_id, apk_version_id, status, initiated_at)
SELECT 'device-' || n, 1 + n % 5, 'pending', now() AT TIME ZONE 'UTC' FROM generate_series(0, {devices - 1}) AS n;
INSERT INTO apk_download_events (build_id, source, token_id, ts)
SELECT 1 + n % 5, 'enrollment', CASE WHEN n % 2 = 0 THEN 'gone-' || n % 7 END, now() AT TIME ZONE 'UTC'
FROM generate_series(1, {devices}) AS n;
"""
