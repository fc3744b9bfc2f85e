"""`python -m local.settings_page` writes docs/settings.md out of the settings; a test says when it has drifted."""

from pathlib import Path
from typing import Any

import msgspec
from nexmdm.runtime.settings import Settings

PATH = Path(__file__).resolve().parents[1] / "docs/settings.md"

# Topics in the order of the page, and what each setting decides. A setting without a sentence fails the test.
ABOUT: dict[str, dict[str, str]] = {
    "Database": {
        "DATABASE_URL": "Where the database is. Without it, on one machine, the embedded PostgreSQL is.",
        "DATABASE_HOST": "In Lambda, in place of DATABASE_URL: IAM authentication, and TLS that checks the name.",
        "DATABASE_PORT": "The port at DATABASE_HOST.",
        "DATABASE_NAME": "The database at DATABASE_HOST.",
        "DATABASE_USER": "Which role a function logs in as: nexmdm_device, nexmdm_app or nexmdm_owner.",
        "DATABASE_CA_BUNDLE": "The certificates that sign the database's.",
        "DATABASE_ADMIN_SECRET": "The administrator who makes the roles; `migrate` only.",
    },
    "AWS": {
        "AWS_REGION": "The region of the functions.",
        "AWS_ACCESS_KEY_ID": "The credentials of the function's role, with the next two.",
        "AWS_SECRET_ACCESS_KEY": "Of the same credentials.",
        "AWS_SESSION_TOKEN": "Of the same credentials.",
        "AWS_ENDPOINT_URL_S3": "Another S3, for tests and one machine.",
        "AWS_ENDPOINT_URL_SNS": "Another SNS, for tests and one machine.",
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": "Another Secrets Manager, for tests and one machine.",
        "POWERTOOLS_SERVICE_NAME": "The `service` of metrics and logs; a stack's name.",
        "PUBLIC_URL": "The API's URL for devices, when it is not the API's own domain.",
    },
    "Devices": {
        "HEARTBEAT_BUCKET_SECONDS": "At most one heartbeat row per device in so many seconds.",
        "HEARTBEAT_INTERVAL_SECONDS": "Announced to devices; a device that is silent for three of them is offline.",
        "HEARTBEAT_LOG_SAMPLE": "One in so many ordinary heartbeats is logged; slow, odd and refused ones always are.",
        "AGENT_PACKAGE": "The agent's package: what `latest` and updates are about.",
        "UNITY_PACKAGE": "The app that is watched on a device for which neither itself nor a group names one.",
    },
    "Commands": {
        "FCM_SERVICE_ACCOUNT": "The Firebase service account that sends.",
        "FCM_ENDPOINT": "Where messages are posted; another one for tests.",
        "FCM_TIMEOUT_SECONDS": "Of connecting to FCM, and of reading its answer.",
        "DISPATCH_LEASE_SECONDS": "How long a sender holds a command; more than the function's and FCM's timeouts.",
        "BULK_INLINE_SECONDS": "How long a bulk call sends before the sweep goes on.",
        "COMMAND_HMAC_KEY": "What messages are signed with.",
        "REMOTE_EXEC_SHELL_ENABLED": "Whether remote_exec_shell is allowed.",
        "SCHEDULES_ENABLED": "Whether schedules may be made; the template's parameter Schedules.",
        "AUTO_RELAUNCH": "Whether the sweep starts a monitored app again where it is not in front.",
        "MISFIRE_GRACE_SECONDS": "How late a scheduled run may still start; later it is recorded as missed.",
    },
    "Builds": {
        "APK_BUCKET": "The versioned bucket of the builds; without it the routes of builds answer 500.",
        "APK_MAX_BYTES": "The largest build that may be declared.",
        "INSTALLATION_TIMEOUT_SECONDS": "After which an installation without an end is `unknown`.",
        "ROLLOUT_PAUSE_INSTALLATIONS": "From how many finished installations on a rollout may pause itself.",
        "ROLLOUT_PAUSE_FAILED_PERCENT": "Above which share of failed installations it does.",
    },
    "Alerts": {
        "ALERT_TOPIC_ARN": "The topic that the watch tells; without it notifications are log records.",
        "ALERT_COOLDOWN_SECONDS": "How long a condition must stay away until its alert has recovered.",
        "ALERT_ROLLOUT_HOURS": "How long a build must have been offered until a device is behind.",
        "APP_BACKGROUND_SECONDS": "How long the monitored app may be out of the foreground.",
        "WEBHOOK_URL": "Where `notify` posts what names no route.",
        "WEBHOOK_SHAPE": "The form of that webhook; by its host when it is not set.",
        "NOTIFICATION_ROUTES": "The routes that alert rules name: docs/operations.md.",
    },
    "Retention": {
        "HEARTBEAT_RETENTION_DAYS": "Of heartbeats.",
        "DISPATCH_RETENTION_DAYS": "Of commands that are settled.",
        "DOWNLOAD_RETENTION_DAYS": "Of records of downloads.",
        "TOKEN_RETENTION_DAYS": "Of enrollment tokens that are over.",
        "ALERT_RETENTION_DAYS": "Of alerts that recovered.",
        "EVENT_RETENTION_DAYS": "Of the log of changes.",
        "DOWNLOAD_EXPORT_BUCKET": "Where cleanup writes records of downloads before it removes them.",
        "HEARTBEAT_EXPORT_BUCKET": "Where cleanup writes each partition of heartbeats before it drops it.",
    },
}

INTRODUCTION = """\
# Settings

Each is an environment variable, the same in Lambda and on one machine. They are read at first use; an error names the
variable and what it should hold, never its value. The template sets them from its parameters. This page is generated:
`make settings`.
"""


def text() -> str:
    """The page."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(Settings)}
    parts = [INTRODUCTION]
    for topic, settings in ABOUT.items():
        parts.append(f"\n## {topic}\n\n| variable | default | holds | decides |\n|---|---|---|---|\n")
        for name, sentence in settings.items():
            if name in fields:
                field = fields[name]
                parts.append(f"| {name} | {_default(field.default)} | {_holds(field)} | {sentence} |\n")
    return "".join(parts)


def undescribed() -> set[str]:
    """Settings that no topic has."""
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
