"""The tables of revision c73b10a6beaa as this project made them; the old server's differ in almost every line.

Columns are written as `catalog.columns` renders them, constraints and indexes as PostgreSQL prints them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

INSTANT = "timestamp with time zone"
NONE: Mapping[str, str] = MappingProxyType({})
MADE_NOW = f"{INSTANT} NOT NULL DEFAULT now()"


class Table(NamedTuple):
    """key: the column whose value names a row. renamed: the old server's name of a column -> ours."""

    key: str
    columns: dict[str, str]
    constraints: dict[str, str]
    indexes: Mapping[str, str] = NONE
    renamed: Mapping[str, str] = NONE
    partitioned_by: str | None = None


DEVICES = Table(
    key="id",
    columns={
        "id": "text NOT NULL",
        "alias": 'text COLLATE "C" NOT NULL',
        "token_id": "text",
        "fcm_token": "text",
        "model": "text",
        "manufacturer": "text",
        "android_version": "text",
        "sdk_int": "integer",
        "build_id": "text",
        "is_device_owner": "boolean",
        "created_at": MADE_NOW,
    },
    constraints={"pk_devices": "PRIMARY KEY (id)", "uq_devices_token_id": "UNIQUE (token_id)"},
)

ENROLLMENT_TOKENS = Table(
    key="token_id",
    columns={
        "token_id": "text NOT NULL",
        "alias": "text NOT NULL",
        "token_hash": "text NOT NULL",
        "issued_by": "text",
        "issued_at": MADE_NOW,
        "expires_at": f"{INSTANT} NOT NULL",
        "uses_allowed": "integer NOT NULL DEFAULT 1",
        "uses_consumed": "integer NOT NULL DEFAULT 0",
        "note": "text",
        "status": "text NOT NULL DEFAULT 'active'::text",
        "device_id": "text",
        "used_at": INSTANT,
        "scope": "text NOT NULL DEFAULT 'register'::text",
        "last_used_at": INSTANT,
    },
    constraints={
        "pk_enrollment_tokens": "PRIMARY KEY (token_id)",
        "uq_enrollment_token_hash": "UNIQUE (token_hash)",
    },
    indexes={
        "idx_enrollment_issued_by": "btree (issued_by, issued_at)",
        "ix_enrollment_tokens_alias": "btree (alias)",
    },
)

APK_VERSIONS = Table(
    key="id",
    columns={
        "id": "integer NOT NULL DEFAULT serial",
        "version_name": "text NOT NULL",
        "version_code": "integer NOT NULL",
        "file_path": "text NOT NULL",
        "file_size": "bigint NOT NULL",
        "uploaded_at": MADE_NOW,
        "uploaded_by": "text",
        "is_active": "boolean NOT NULL DEFAULT true",
        "package_name": "text NOT NULL DEFAULT 'com.example.app'::text",
        "notes": "text",
        "build_type": "text",
        "ci_run_id": "text",
        "git_sha": "text",
        "signer_fingerprint": "text",
        "storage_url": "text",
    },
    constraints={"pk_apk_versions": "PRIMARY KEY (id)"},
    indexes={
        "idx_apk_build_type": "btree (version_code, build_type)",
        "idx_apk_version_lookup": "btree (package_name, version_code)",
    },
)

APK_INSTALLATIONS = Table(
    key="id",
    columns={
        "id": "integer NOT NULL DEFAULT serial",
        "device_id": "text NOT NULL",
        "apk_version_id": "integer NOT NULL",
        "status": "text NOT NULL",
        "initiated_at": MADE_NOW,
        "completed_at": INSTANT,
        "download_progress": "integer",
        "error_message": "text",
        "initiated_by": "text",
    },
    constraints={
        "pk_apk_installations": "PRIMARY KEY (id)",
        "fk_apk_installations_apk_version_id": "FOREIGN KEY (apk_version_id) REFERENCES apk_versions(id)",
        "fk_apk_installations_device_id": "FOREIGN KEY (device_id) REFERENCES devices(id)",
    },
    indexes={
        "idx_installation_status": "btree (device_id, status)",
        "idx_installation_time": "btree (initiated_at)",
        "idx_installation_version_status": "btree (apk_version_id, status)",
    },
)

FCM_DISPATCHES = Table(
    key="request_id",
    columns={
        "request_id": "text NOT NULL",
        "device_id": "text NOT NULL",
        "action": "text NOT NULL",
        "payload_hash": "text",
        "sent_at": MADE_NOW,
        "latency_ms": "integer",
        "fcm_message_id": "text",
        "http_code": "integer",
        "fcm_status": "text NOT NULL DEFAULT 'pending'::text",
        "error_msg": "text",
        "response_json": "text",
        "retries": "integer NOT NULL DEFAULT 0",
        "completed_at": INSTANT,
        "result": "text",
        "result_message": "text",
    },
    constraints={
        "pk_fcm_dispatches": "PRIMARY KEY (request_id)",
        "fk_fcm_dispatches_device_id": "FOREIGN KEY (device_id) REFERENCES devices(id)",
    },
    indexes={
        "idx_fcm_action_sent": "btree (action, sent_at)",
        "idx_fcm_device_sent": "btree (device_id, sent_at)",
        "ix_fcm_dispatches_sent_at": "btree (sent_at)",
    },
)

DEVICE_HEARTBEATS = Table(
    key="hb_id",
    columns={
        "hb_id": "bigint NOT NULL DEFAULT serial",
        "bucket": f"{INSTANT} NOT NULL",
        "device_id": "text NOT NULL",
        "ts": MADE_NOW,
        "status": "text NOT NULL DEFAULT 'ok'::text",
        "ip": "text",
        "battery_pct": "integer",
        "plugged": "boolean",
        "temp_c": "double precision",
        "network_type": "text",
        "signal_dbm": "integer",
        "uptime_s": "bigint",
        "ram_used_mb": "integer",
        "unity_pkg_version": "text",
        "unity_running": "boolean",
        "agent_version": "text",
    },
    constraints={
        "pk_device_heartbeats": "PRIMARY KEY (hb_id, bucket)",
        "uq_device_heartbeats_device_id_bucket": "UNIQUE (device_id, bucket)",
        "fk_device_heartbeats_device_id": "FOREIGN KEY (device_id) REFERENCES devices(id)",
    },
    partitioned_by="RANGE (bucket)",
)

APK_DOWNLOAD_EVENTS = Table(
    key="id",
    columns={
        "id": "bigint NOT NULL DEFAULT serial",
        "build_id": "integer NOT NULL",
        "source": "text NOT NULL",
        "token_id": "text",
        "admin_user": "text",
        "ip": "text",
        "ts": MADE_NOW,
    },
    constraints={
        "pk_apk_download_events": "PRIMARY KEY (id)",
        "fk_apk_download_events_build_id": "FOREIGN KEY (build_id) REFERENCES apk_versions(id)",
    },
    indexes={
        "idx_apk_download_build_ts": "btree (build_id, ts)",
        "idx_apk_download_token_ts": "btree (token_id, ts)",
        "ix_apk_download_events_ts": "btree (ts)",
    },
    renamed={"event_id": "id"},
)

# In this order: a foreign key finds its table.
TABLES = {
    "devices": DEVICES,
    "enrollment_tokens": ENROLLMENT_TOKENS,
    "apk_versions": APK_VERSIONS,
    "apk_installations": APK_INSTALLATIONS,
    "fcm_dispatches": FCM_DISPATCHES,
    "device_heartbeats": DEVICE_HEARTBEATS,
    "apk_download_events": APK_DOWNLOAD_EVENTS,
}
