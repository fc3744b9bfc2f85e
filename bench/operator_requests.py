"""At least one request for each operator route of the template, for `bench.operators`.

A route without an entry fails `tests/bench/test_operators.py` and the measurement. `n` is the number of the round, so
that each round changes different objects.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from nexmdm_cli.api import Body

ALL: Body = {"filter": {"all": True}}
SITE: Body = {"filter": {"selector": "site=s7"}}
NOT_SITE: Body = {"filter": {"selector": "site!=s7"}}
OF_SITE = "SELECT id FROM devices WHERE labels ->> 'site' = 's7'"
OF_GROUPS = "SELECT id FROM devices WHERE labels ->> 'site' IN (SELECT 's' || n FROM generate_series(1, 20) AS n)"
OF_ALL = "SELECT id FROM devices"
OF_NOT_SITE = "SELECT id FROM devices WHERE labels ->> 'site' IS DISTINCT FROM 's7'"


class Ask(msgspec.Struct, kw_only=True):
    """One request.

    Attributes:
        path, body: of round n; constant if not callable.
        rows: the query for the ids of the affected devices; a request about many devices may take three times as long
        as fetching them by primary key. reads: tables that it may read completely: those with a row per device, for a
        request about almost all devices. most_seconds: an individual limit, if there is one.
    """

    path: str | Callable[[int], str]
    label: str = ""
    body: Any = None
    query: dict[str, str] = {}
    key: bool = False
    rows: str | None = None
    reads: tuple[str, ...] = ()
    most_seconds: float | None = None
    rounds: int | None = None

    def at(self, n: int) -> tuple[str, Any]:
        path = self.path if isinstance(self.path, str) else self.path(n)
        return path, self.body(n) if callable(self.body) else self.body


def _device(n: int) -> str:
    return f"/v1/devices/live-{1 + n * 37 % 5000}"


FLEET = ("devices", "device_last_status")
# The tables that are read to count the installations of a build that every device has.
INSTALLED = (*FLEET, "apk_installations", "device_apps")

REQUESTS: dict[str, list[Ask]] = {
    "POST /v1/enroll-tokens": [
        Ask(path="/v1/enroll-tokens", body=lambda n: {"aliases": [f"new-{n}-{i}" for i in range(100)]})
    ],
    "GET /v1/enroll-tokens": [
        Ask(path="/v1/enroll-tokens"),
        Ask(path="/v1/enroll-tokens", label="status=active", query={"status": "active", "limit": "500"}),
    ],
    "DELETE /v1/enroll-tokens/{token_id}": [Ask(path=lambda n: f"/v1/enroll-tokens/token-{10 * n}")],
    "POST /v1/enroll-tokens/batch-delete": [
        Ask(
            path="/v1/enroll-tokens/batch-delete",
            body=lambda n: {"token_ids": [f"token-{10 * (100 * n + i) + 50_000}" for i in range(100)]},
        )
    ],
    "POST /v1/devices/{device_id}/commands": [
        Ask(path=lambda n: f"{_device(n)}/commands", body={"action": "ping"}, key=True)
    ],
    "POST /v1/commands": [
        Ask(path="/v1/commands", label="one label", body={"action": "ring", **SITE}, key=True, rows=OF_SITE),
        Ask(
            path="/v1/commands",
            label="all",
            body={"action": "ping", **ALL},
            key=True,
            rows=OF_ALL,
            reads=FLEET,
            rounds=2,
        ),
    ],
    "GET /v1/commands": [
        Ask(path="/v1/commands"),
        Ask(path="/v1/commands", label="state=failed", query={"state": "failed", "limit": "500"}),
        Ask(path="/v1/commands", label="of a device", query={"device_id": "live-77"}),
        Ask(path="/v1/commands", label="of a batch", query={"batch": "batch-5", "limit": "500"}),
    ],
    "GET /v1/commands/{request_id}": [
        Ask(path=lambda n: f"/v1/commands/batch-{1 + n}"),
        Ask(path=lambda n: f"/v1/commands/lost-{n}", label="of one device"),
    ],
    "GET /v1/commands/{request_id}/result": [Ask(path=lambda n: f"/v1/commands/lost-{100 + n}/result")],
    "GET /v1/audit/commands": [Ask(path="/v1/audit/commands", most_seconds=60, reads=("fcm_dispatches",), rounds=2)],
    "POST /v1/commands/{request_id}/cancel": [Ask(path=lambda n: f"/v1/commands/open-{n}/cancel")],
    "POST /v1/commands/{request_id}/resend": [
        Ask(path=lambda n: f"/v1/commands/lost-{n}/resend", body={"reason": "no answer"})
    ],
    "POST /v1/schedules": [
        Ask(
            path="/v1/schedules",
            body=lambda n: {"name": f"hourly-{n}", "cron": "0 * * * *", "action": "ping", **ALL},
        )
    ],
    "GET /v1/schedules": [Ask(path="/v1/schedules")],
    "GET /v1/schedules/{name}": [Ask(path=lambda n: f"/v1/schedules/schedule-{1 + n}")],
    "PATCH /v1/schedules/{name}": [Ask(path=lambda n: f"/v1/schedules/schedule-{1 + n}", body={"enabled": False})],
    "DELETE /v1/schedules/{name}": [Ask(path=lambda n: f"/v1/schedules/schedule-{100 + n}")],
    "POST /v1/schedules/{name}/run": [
        Ask(path=lambda n: f"/v1/schedules/schedule-{150 + n}/run", key=True, rows=OF_SITE)
    ],
    "GET /v1/schedules/{name}/runs": [Ask(path=lambda n: f"/v1/schedules/schedule-{1 + n}/runs")],
    "POST /v1/apk/builds": [],
    "POST /v1/apk/builds/{build_id}/complete": [],
    "GET /v1/apk/builds": [Ask(path="/v1/apk/builds", rows=OF_ALL, reads=INSTALLED)],
    "GET /v1/apk/builds/{build_id}": [
        Ask(path=lambda n: f"/v1/apk/builds/{200 - n % 2}", rows=OF_ALL, reads=INSTALLED)
    ],
    "DELETE /v1/apk/builds/{build_id}": [Ask(path=lambda n: f"/v1/apk/builds/{201 + n}")],
    "POST /v1/apk/builds/{build_id}/promote": [
        Ask(path=lambda n: f"/v1/apk/builds/{19 + 10 * n}/promote", body={}, rows=OF_ALL, reads=INSTALLED, rounds=15)
    ],
    "POST /v1/apk/builds/{build_id}/rollout": [
        Ask(
            path="/v1/apk/builds/3/rollout",
            body=lambda n: {"staged_rollout_percent": 10 + n, **SITE},
            rows=OF_ALL,
            reads=INSTALLED,
        )
    ],
    "GET /v1/apk/builds/{build_id}/installations": [
        Ask(path="/v1/apk/builds/200/installations"),
        Ask(path="/v1/apk/builds/200/installations", label="status=failed", query={"status": "failed", "limit": "500"}),
    ],
    "POST /v1/apk/builds/{build_id}/pause": [
        Ask(path=lambda n: f"/v1/apk/builds/{1 + n % 2}/pause", body={}, rows=OF_ALL, reads=INSTALLED)
    ],
    "POST /v1/apk/builds/{build_id}/resume": [
        Ask(path=lambda n: f"/v1/apk/builds/{1 + n % 2}/resume", rows=OF_ALL, reads=INSTALLED)
    ],
    "POST /v1/apk/builds/{build_id}/rollback": [
        Ask(path=lambda n: f"/v1/apk/builds/{5 + n}/rollback", body={}, rounds=3, rows=OF_ALL, reads=INSTALLED)
    ],
    "GET /v1/apk/builds/{build_id}/download": [],
    "GET /v1/apk/packages/{package_name}/signers": [Ask(path="/v1/apk/packages/com.example.app1/signers")],
    "PUT /v1/apk/packages/{package_name}/signers": [
        Ask(path="/v1/apk/packages/com.example.app1/signers", body=lambda n: {"fingerprints": [f"{n:064x}"]})
    ],
    "GET /v1/devices": [
        Ask(path="/v1/devices"),
        Ask(path="/v1/devices", label="limit=500", query={"limit": "500"}),
        Ask(path="/v1/devices", label="alias=live-4", query={"alias": "live-4"}),
        Ask(path="/v1/devices", label="one label", query={"selector": "site=s7", "limit": "500"}, rows=OF_SITE),
        Ask(path="/v1/devices", label="not a label", query={"selector": "site!=s7"}),
        Ask(path="/v1/devices", label="online=false", query={"online": "false"}),
        Ask(path="/v1/devices", label="group", query={"group": "group-3"}, rows=OF_SITE),
        Ask(path="/v1/devices", label="agent version", query={"agent_version": "2.3"}),
    ],
    "GET /v1/devices/{device_id}": [Ask(path=_device)],
    "PATCH /v1/devices/{device_id}": [Ask(path=_device, body=lambda n: {"alias": f"renamed-{n}"})],
    "DELETE /v1/devices/{device_id}": [Ask(path=lambda n: f"/v1/devices/live-{1_500 + n}")],
    "GET /v1/devices/{device_id}/heartbeats": [
        Ask(path=lambda n: f"{_device(n)}/heartbeats"),
        Ask(path=lambda n: f"{_device(n)}/heartbeats", label="limit=500", query={"limit": "500"}),
    ],
    "GET /v1/devices/{device_id}/history": [Ask(path=lambda n: f"{_device(n)}/history")],
    "GET /v1/devices/{device_id}/apps": [Ask(path=lambda n: f"{_device(n)}/apps")],
    "POST /v1/devices/preview": [
        Ask(path="/v1/devices/preview", label="one label", body=SITE, rows=OF_SITE),
        Ask(path="/v1/devices/preview", label="all", body=ALL, rows=OF_ALL, reads=FLEET),
        Ask(path="/v1/devices/preview", label="not a label", body=NOT_SITE, rows=OF_NOT_SITE, reads=FLEET),
    ],
    "POST /v1/devices/labels": [
        Ask(
            path="/v1/devices/labels",
            label="one label",
            rows=OF_SITE,
            body=lambda n: {**SITE, "set": {"checked": f"c{n}"}},
        )
    ],
    "POST /v1/devices/delete": [
        Ask(
            path="/v1/devices/delete",
            body=lambda n: {"device_ids": [f"live-{1_600 + 10 * n + i}" for i in range(10)]},
        )
    ],
    "POST /v1/devices/import": [
        Ask(
            path="/v1/devices/import",
            body=lambda n: {
                "devices": [{"device_id": f"live-{1 + i}", "labels": {"round": str(n)}} for i in range(100)]
            },
        )
    ],
    "GET /v1/apps": [
        Ask(path="/v1/apps", reads=("device_apps", *FLEET), rows=OF_ALL),
        Ask(path="/v1/apps", label="one label", query={"selector": "site=s7"}, rows=OF_SITE),
    ],
    "GET /v1/labels": [Ask(path="/v1/labels", reads=("devices",), rows=OF_ALL)],
    "GET /v1/groups": [Ask(path="/v1/groups", rows=OF_GROUPS)],
    "GET /v1/groups/{name}": [Ask(path=lambda n: f"/v1/groups/group-{1 + n % 10}", rows=OF_SITE)],
    "PUT /v1/groups/{name}": [Ask(path=lambda n: f"/v1/groups/tills-{n}", body=SITE, rows=OF_SITE)],
    "DELETE /v1/groups/{name}": [Ask(path=lambda n: f"/v1/groups/tills-{n}")],
    "GET /v1/fleet/summary": [
        Ask(path="/v1/fleet/summary", reads=FLEET, rows=OF_ALL),
        Ask(path="/v1/fleet/summary", label="one label", query={"selector": "site=s7"}, rows=OF_SITE),
    ],
    "GET /v1/fleet/history": [
        Ask(path="/v1/fleet/history"),
        Ask(path="/v1/fleet/history", label="group, by day", query={"group": "group-1", "step": "day"}),
    ],
    "GET /v1/events": [
        Ask(path="/v1/events"),
        Ask(path="/v1/events", label="of a device", query={"object": "device:live-77"}),
        Ask(path="/v1/events", label="an action", query={"action": "build.rollout", "limit": "500"}),
    ],
    "GET /v1/alerts": [
        Ask(path="/v1/alerts"),
        Ask(path="/v1/alerts", label="one label", query={"selector": "site=s7"}),
        Ask(path="/v1/alerts", label="of a device", query={"device_id": "live-50"}),
    ],
    "POST /v1/alerts/{alert_id}/ack": [
        Ask(path=lambda n: f"/v1/alerts/{1 + 50 * n}/ack", body={"note": "on it"}, rounds=10)
    ],
    "GET /v1/alert-rules": [Ask(path="/v1/alert-rules")],
    "POST /v1/alert-rules": [
        Ask(path="/v1/alert-rules", body=lambda n: {"name": f"hot-{n}", "condition": "high_temperature"})
    ],
    "GET /v1/alert-rules/{name}": [Ask(path="/v1/alert-rules/silent")],
    "PATCH /v1/alert-rules/{name}": [
        Ask(path="/v1/alert-rules/silent", body=lambda n: {"severity": ("critical", "warning")[n % 2]})
    ],
    "DELETE /v1/alert-rules/{name}": [Ask(path=lambda n: f"/v1/alert-rules/hot-{n}")],
    "GET /v1/mutes": [Ask(path="/v1/mutes")],
    "POST /v1/mutes": [Ask(path="/v1/mutes", body={**SITE, "until": "2999-01-01T00:00:00Z", "reason": "moving"})],
    "DELETE /v1/mutes/{mute_id}": [Ask(path=lambda n: f"/v1/mutes/{1 + n}")],
}

# Routes that are not measured, with the reason: they call S3. Their statements are by primary key.
TO_S3 = {
    "POST /v1/apk/builds": "signs an upload",
    "POST /v1/apk/builds/{build_id}/complete": "reads the APK",
    "GET /v1/apk/builds/{build_id}/download": "signs a download",
}
