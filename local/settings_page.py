"""`python -m local.settings_page` generates docs/settings.md from the settings; a test fails when the page has
drifted."""

from pathlib import Path
from typing import Any

import msgspec
from nexmdm.runtime.settings import Settings

PATH = Path(__file__).resolve().parents[1] / "docs/settings.md"

# Topics in the order of the page, with a sentence for each setting. A setting without a sentence fails the test.
ABOUT: dict[str, dict[str, str]] = {
    "Database": {
        "DATABASE_URL": "The database. If it is not set, the local stack uses the embedded PostgreSQL.",
        "DATABASE_HOST": "Replaces DATABASE_URL in Lambda: IAM authentication, and TLS with host name verification.",
        "DATABASE_PORT": "The port at DATABASE_HOST.",
        "DATABASE_NAME": "The database at DATABASE_HOST.",
        "DATABASE_USER": "Which role a function logs in as: nexmdm_device, nexmdm_app or nexmdm_owner.",
        "DATABASE_CA_BUNDLE": "The CA certificates that the database's certificate is verified with.",
        "DATABASE_ADMIN_SECRET": "The administrator's login, which creates the roles; used only by `migrate`.",
    },
    "AWS": {
        "AWS_REGION": "The region of the functions.",
        "AWS_ACCESS_KEY_ID": "The credentials of the function's role, together with the next two.",
        "AWS_SECRET_ACCESS_KEY": "Part of the same credentials.",
        "AWS_SESSION_TOKEN": "Part of the same credentials.",
        "AWS_ENDPOINT_URL_S3": "Another S3 endpoint, for tests and the local stack.",
        "AWS_ENDPOINT_URL_SNS": "Another SNS endpoint, for tests and the local stack.",
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": "Another Secrets Manager endpoint, for tests and the local stack.",
        "POWERTOOLS_SERVICE_NAME": "The `service` dimension of metrics; a stack's name.",
        "PUBLIC_URL": "The API's URL for devices, when it is not the API's own domain.",
    },
    "Devices": {
        "HEARTBEAT_BUCKET_SECONDS": "At most one heartbeat row is stored per device in this many seconds.",
        "HEARTBEAT_INTERVAL_SECONDS": "Announced to devices; a device that is silent for three intervals is offline.",
        "HEARTBEAT_LOG_SAMPLE": "One in this many ordinary heartbeats is logged; unusual ones always are.",
        "AGENT_PACKAGE": "The agent's package, which `latest` and agent updates refer to.",
        "UNITY_PACKAGE": "The monitored app of devices for which neither the device nor a group names one.",
    },
    "Commands": {
        "FCM_SERVICE_ACCOUNT": "The Firebase service account that messages are sent with.",
        "FCM_ENDPOINT": "Where messages are posted; another one for tests.",
        "FCM_TIMEOUT_SECONDS": "The timeout for connecting to FCM, and for reading its response.",
        "DISPATCH_LEASE_SECONDS": "Duration of a sender's claim; must exceed the function's and FCM's timeouts.",
        "BULK_INLINE_SECONDS": "How long a bulk request sends messages itself before the sweep takes over.",
        "COMMAND_HMAC_KEY": "The key that messages are signed with.",
        "REMOTE_EXEC_SHELL_ENABLED": "Whether remote_exec_shell is allowed.",
        "SCHEDULES_ENABLED": "Whether schedules may be created; set by the template's parameter Schedules.",
        "AUTO_RELAUNCH": "Whether the sweep restarts monitored apps that are not in the foreground.",
        "MISFIRE_GRACE_SECONDS": "How late a scheduled run may still start; later it is recorded as missed.",
    },
    "Builds": {
        "APK_BUCKET": "The versioned bucket of the builds; without it the build routes return 500.",
        "APK_MAX_BYTES": "The largest build that may be declared.",
        "INSTALLATION_TIMEOUT_SECONDS": "The time after which an unfinished installation becomes `unknown`.",
        "ROLLOUT_PAUSE_INSTALLATIONS": "Minimum of finished installations before a rollout pauses itself.",
        "ROLLOUT_PAUSE_FAILED_PERCENT": "The share of failed installations above which it pauses.",
    },
    "Alerts": {
        "ALERT_TOPIC_ARN": "The topic that notifications are published to; without it they are written to the log.",
        "ALERT_COOLDOWN_SECONDS": "How long a condition must be absent before its alert recovers.",
        "ALERT_ROLLOUT_HOURS": "How long a build must have been offered before a device counts as outdated.",
        "APP_BACKGROUND_SECONDS": "How long the monitored app may be in the background.",
        "WEBHOOK_URL": "The URL to which `notify` posts notifications without a route.",
        "WEBHOOK_SHAPE": "The message format of that webhook; derived from its host if not set.",
        "NOTIFICATION_ROUTES": "The routes that alert rules can name; see docs/operations.md.",
    },
    "Retention": {
        "HEARTBEAT_RETENTION_DAYS": "How long heartbeats are kept.",
        "DISPATCH_RETENTION_DAYS": "How long settled commands are kept.",
        "DOWNLOAD_RETENTION_DAYS": "How long download records are kept.",
        "TOKEN_RETENTION_DAYS": "How long expired or used-up enrollment tokens are kept.",
        "ALERT_RETENTION_DAYS": "How long recovered alerts are kept.",
        "EVENT_RETENTION_DAYS": "How long the event log is kept.",
        "DOWNLOAD_EXPORT_BUCKET": "The bucket to which cleanup writes download records before removing them.",
        "HEARTBEAT_EXPORT_BUCKET": "The bucket to which cleanup writes each heartbeat partition before dropping it.",
    },
}

INTRODUCTION = """\
# Settings

Settings are environment variables, the same in Lambda and in the local stack. They are read at first use; an error
names the variable and the expected value, never the actual one. On AWS a setting
that the template does not set has the default given here; to change it, add it to template.yaml under
Globals.Function.Environment.Variables.
`make settings` generates this page.
"""


def text() -> str:
    """The page."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(Settings)}
    parts = [INTRODUCTION]
    for topic, settings in ABOUT.items():
        parts.append(f"\n## {topic}\n\n| variable | default | value | purpose |\n|---|---|---|---|\n")
        for name, sentence in settings.items():
            if name in fields:
                field = fields[name]
                parts.append(f"| {name} | {_default(field.default)} | {_holds(field)} | {sentence} |\n")
    return "".join(parts)


def undescribed() -> set[str]:
    """Settings that no topic describes."""
    described = {name for settings in ABOUT.values() for name in settings}
    return {field.encode_name for field in msgspec.structs.fields(Settings)} - described


def _default(value: Any) -> str:
    if value is None:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _holds(field: Any) -> str:
    types = (field.type, *getattr(field.type, "__args__", ()))
    metas = [meta for type_ in types for meta in getattr(type_, "__metadata__", ())]
    return "; ".join(meta.description for meta in metas if getattr(meta, "description", None))


if __name__ == "__main__":
    PATH.write_text(text())
