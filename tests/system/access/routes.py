"""For each route of template.yaml: who may call it, a valid request, and the status of its response.

A new route without an entry fails `test_every_route_is_in_the_matrix`.
"""

from typing import Any, NamedTuple

from tests.support import agent
from tests.support.builds import declaration, sample


class Entry(NamedTuple):
    """kind: whose route it is, a key of `principals.EXPECTED`. path, body: may contain names of the stage in {}. right:
    the status of a valid request. another: the status for a device other than the one that the request is about."""

    kind: str
    path: str
    right: int
    body: Any = None
    another: int = 0


ENTRIES: dict[str, Entry] = {
    "POST /v1/register": Entry("enrollment", "/v1/register", 200, {"alias": "newcomer"}),
    "GET /healthz": Entry("anyone", "/healthz?deep=1", 200),
    "POST /v1/heartbeat": Entry("device", "/v1/heartbeat", 200, agent.heartbeat(), another=200),
    "POST /v1/heartbeats": Entry("device", "/v1/heartbeats", 200, {"heartbeats": [agent.heartbeat()]}, another=200),
    "POST /v1/devices/fcm-token": Entry(
        "device", "/v1/devices/fcm-token", 200, {"device_id": "{device}", "fcm_token": "fcm:new"}, another=403
    ),
    "POST /v1/devices/{device_id}/ack": Entry(
        "device", "/v1/devices/{device}/ack", 200, {"request_id": "sent", "type": "PING_ACK"}, another=403
    ),
    "POST /v1/action-result": Entry(
        "device",
        "/v1/action-result",
        200,
        {"request_id": "sent", "action": "ping", "outcome": "ok", "finished_at": "2026-01-01T00:00:00Z"},
        another=404,
    ),
    "POST /v1/remote-exec/ack": Entry(
        "device",
        "/v1/remote-exec/ack",
        200,
        {"exec_id": "sent", "correlation_id": "sent", "device_id": "{device}", "status": "OK"},
        another=404,
    ),
    "POST /v1/apk/installation/update": Entry(
        "device",
        "/v1/apk/installation/update",
        200,
        {"installation_id": "{installation}", "status": "downloading"},
        another=404,
    ),
    "GET /v1/agent/update": Entry("device", "/v1/agent/update", 200, another=200),
    "GET /v1/apk/download/latest": Entry("download", "/v1/apk/download/latest", 302, another=302),
    "GET /v1/apk/download-latest": Entry("download", "/v1/apk/download-latest", 302, another=302),
    "GET /v1/apk/download/{build_id}": Entry("download", "/v1/apk/download/{build}", 302, another=302),
    "POST /v1/enroll-tokens": Entry("operator", "/v1/enroll-tokens", 201, {"aliases": ["hall"]}),
    "GET /v1/enroll-tokens": Entry("operator", "/v1/enroll-tokens", 200),
    "DELETE /v1/enroll-tokens/{token_id}": Entry("operator", "/v1/enroll-tokens/{spare_token}", 204),
    "POST /v1/enroll-tokens/batch-delete": Entry(
        "operator", "/v1/enroll-tokens/batch-delete", 200, {"token_ids": ["{spare_token}"]}
    ),
    "GET /v1/devices": Entry("operator", "/v1/devices", 200),
    "GET /v1/devices/{device_id}": Entry("operator", "/v1/devices/{device}", 200),
    "PATCH /v1/devices/{device_id}": Entry("operator", "/v1/devices/{device}", 200, {"alias": "renamed"}),
    "DELETE /v1/devices/{device_id}": Entry("operator", "/v1/devices/{spare_device}", 204),
    "POST /v1/devices/preview": Entry("operator", "/v1/devices/preview", 200, {"filter": {"all": True}}),
    "POST /v1/devices/labels": Entry(
        "operator", "/v1/devices/labels", 200, {"filter": {"alias_prefix": "x"}, "set": {"site": "berlin"}}
    ),
    "POST /v1/devices/delete": Entry("operator", "/v1/devices/delete", 200, {"device_ids": ["{spare_device}"]}),
    "POST /v1/devices/import": Entry(
        "operator", "/v1/devices/import", 200, {"devices": [{"device_id": "{device}", "labels": {"site": "berlin"}}]}
    ),
    "GET /v1/devices/{device_id}/apps": Entry("operator", "/v1/devices/{device}/apps", 200),
    "GET /v1/apps": Entry("operator", "/v1/apps", 200),
    "GET /v1/labels": Entry("operator", "/v1/labels", 200),
    "GET /v1/groups": Entry("operator", "/v1/groups", 200),
    "GET /v1/groups/{name}": Entry("operator", "/v1/groups/pilot", 200),
    "PUT /v1/groups/{name}": Entry("operator", "/v1/groups/tills", 200, {"filter": {"selector": "role=till"}}),
    "DELETE /v1/groups/{name}": Entry("operator", "/v1/groups/spare", 204),
    "GET /v1/devices/{device_id}/heartbeats": Entry("operator", "/v1/devices/{device}/heartbeats", 200),
    "GET /v1/devices/{device_id}/history": Entry("operator", "/v1/devices/{device}/history", 200),
    "GET /v1/fleet/summary": Entry("operator", "/v1/fleet/summary", 200),
    "GET /v1/fleet/history": Entry("operator", "/v1/fleet/history", 200),
    "GET /v1/alerts": Entry("operator", "/v1/alerts", 200),
    "POST /v1/alerts/{alert_id}/ack": Entry("operator", "/v1/alerts/{alert}/ack", 200, {"note": "on it"}),
    "GET /v1/alert-rules": Entry("operator", "/v1/alert-rules", 200),
    "POST /v1/alert-rules": Entry("operator", "/v1/alert-rules", 201, {"name": "hot", "condition": "high_temperature"}),
    "GET /v1/alert-rules/{name}": Entry("operator", "/v1/alert-rules/silent", 200),
    "PATCH /v1/alert-rules/{name}": Entry("operator", "/v1/alert-rules/silent", 200, {"severity": "critical"}),
    "DELETE /v1/alert-rules/{name}": Entry("operator", "/v1/alert-rules/low_battery", 204),
    "GET /v1/mutes": Entry("operator", "/v1/mutes", 200),
    "POST /v1/mutes": Entry(
        "operator", "/v1/mutes", 201, {"filter": {"all": True}, "until": "2999-01-01T00:00:00Z", "reason": "moving"}
    ),
    "DELETE /v1/mutes/{mute_id}": Entry("operator", "/v1/mutes/{mute}", 204),
    "GET /v1/events": Entry("operator", "/v1/events", 200),
    "POST /v1/devices/{device_id}/commands": Entry(
        "operator", "/v1/devices/{device}/commands", 202, {"action": "ping", "request_id": "one"}
    ),
    "POST /v1/commands": Entry(
        "operator", "/v1/commands", 202, {"action": "ping", "request_id": "many", "filter": {"all": True}}
    ),
    "GET /v1/commands": Entry("operator", "/v1/commands", 200),
    "GET /v1/commands/{request_id}": Entry("operator", "/v1/commands/sent", 200),
    "GET /v1/audit/commands": Entry("operator", "/v1/audit/commands", 200),
    "GET /v1/commands/{request_id}/result": Entry("operator", "/v1/commands/sent/result", 200),
    "POST /v1/schedules": Entry(
        "operator",
        "/v1/schedules",
        201,
        {"name": "hourly", "cron": "0 * * * *", "filter": {"all": True}, "action": "ping"},
    ),
    "GET /v1/schedules": Entry("operator", "/v1/schedules", 200),
    "GET /v1/schedules/{name}": Entry("operator", "/v1/schedules/nightly", 200),
    "PATCH /v1/schedules/{name}": Entry("operator", "/v1/schedules/nightly", 200, {"enabled": False}),
    "DELETE /v1/schedules/{name}": Entry("operator", "/v1/schedules/spare", 204),
    "POST /v1/schedules/{name}/run": Entry("operator", "/v1/schedules/nightly/run", 202),
    "GET /v1/schedules/{name}/runs": Entry("operator", "/v1/schedules/nightly/runs", 200),
    "POST /v1/commands/{request_id}/cancel": Entry("operator", "/v1/commands/unknown/cancel", 200),
    "POST /v1/commands/{request_id}/resend": Entry(
        "operator", "/v1/commands/lost/resend", 202, {"reason": "no answer"}
    ),
    "POST /v1/apk/builds": Entry("operator", "/v1/apk/builds", 201, declaration(sample("agent-3"), 3)),
    "GET /v1/apk/builds": Entry("operator", "/v1/apk/builds", 200),
    "GET /v1/apk/builds/{build_id}": Entry("operator", "/v1/apk/builds/{build}", 200),
    "DELETE /v1/apk/builds/{build_id}": Entry("operator", "/v1/apk/builds/{declared}", 204),
    "POST /v1/apk/builds/{build_id}/complete": Entry("operator", "/v1/apk/builds/{build}/complete", 200),
    "POST /v1/apk/builds/{build_id}/promote": Entry("operator", "/v1/apk/builds/{build}/promote", 200, {}),
    "POST /v1/apk/builds/{build_id}/rollout": Entry(
        "operator", "/v1/apk/builds/{build}/rollout", 200, {"staged_rollout_percent": 50}
    ),
    "GET /v1/apk/builds/{build_id}/installations": Entry("operator", "/v1/apk/builds/{build}/installations", 200),
    "POST /v1/apk/builds/{build_id}/pause": Entry("operator", "/v1/apk/builds/{build}/pause", 200, {}),
    "POST /v1/apk/builds/{build_id}/resume": Entry("operator", "/v1/apk/builds/{build}/resume", 200),
    "POST /v1/apk/builds/{build_id}/rollback": Entry("operator", "/v1/apk/builds/{build}/rollback", 200, {}),
    "GET /v1/apk/builds/{build_id}/download": Entry("operator", "/v1/apk/builds/{build}/download", 302),
    "GET /v1/apk/packages/{package_name}/signers": Entry("operator", "/v1/apk/packages/com.nexmdm/signers", 200),
    "PUT /v1/apk/packages/{package_name}/signers": Entry(
        "operator", "/v1/apk/packages/com.nexmdm/signers", 200, {"fingerprints": ["ab" * 32]}
    ),
}
