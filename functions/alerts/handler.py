"""Operator routes for alerts, alert rules and mutes."""

from typing import Annotated

from msgspec import Meta
from nexmdm.alerts import evaluation, mutes, rules
from nexmdm.runtime import database, settings, validation, warmup
from nexmdm.runtime.http import Request, Routes
from nexmdm.runtime.pagination import Page, PageQuery

routes = Routes()
handler = routes.handle

Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]


@routes("GET /v1/alerts")
def list_alerts(request: Request, query: evaluation.AlertsQuery) -> Page[evaluation.Alert]:
    """List alerts about devices, newest first, with the times at which they began, were notified and recovered."""
    return evaluation.list_alerts(database.connection(), query, settings.load())


@routes("POST /v1/alerts/{alert_id}/ack")
def acknowledge_alert(request: Request, body: evaluation.Acknowledgement) -> evaluation.Alert:
    """Acknowledge an open alert; a later note replaces an earlier one."""
    alert_id = _id(request, "alert_id")
    return evaluation.acknowledge(database.connection(), request.actor, alert_id, body.note)


@routes("GET /v1/alert-rules")
def list_rules(request: Request, query: PageQuery) -> Page[rules.Rule]:
    """List alert rules, sorted by name."""
    return rules.list_rules(database.connection(), query)


@routes("POST /v1/alert-rules", status=201, problems=(409,))
def create_rule(request: Request, body: rules.NewRule) -> rules.Rule:
    """Create an alert rule.

    One rule applies per device and condition: the one with the lowest `priority`, then one with a filter, then the
    first by name.
    """
    return rules.create(database.connection(), request.actor, body)


@routes("GET /v1/alert-rules/{name}")
def show_rule(request: Request) -> rules.Rule:
    """Show an alert rule."""
    return rules.show(database.connection(), request.path["name"])


@routes("PATCH /v1/alert-rules/{name}")
def change_rule(request: Request, body: rules.RuleChange) -> rules.Rule:
    """Change an alert rule; null removes its filter, threshold or quiet hours."""
    return rules.change(database.connection(), request.actor, request.path["name"], body)


@routes("DELETE /v1/alert-rules/{name}", status=204)
def delete_rule(request: Request) -> None:
    """Delete an alert rule; its open alerts recover unless another rule applies to their devices."""
    rules.delete(database.connection(), request.actor, request.path["name"])


@routes("GET /v1/mutes")
def list_mutes(request: Request, query: PageQuery) -> Page[mutes.Mute]:
    """List active mutes, newest first."""
    return mutes.list_mutes(database.connection(), query)


@routes("POST /v1/mutes", status=201)
def create_mute(request: Request, body: mutes.NewMute) -> mutes.Mute:
    """Mute alerts of some devices until a given time: they open and recover without notifications."""
    return mutes.create(database.connection(), request.actor, body)


@routes("DELETE /v1/mutes/{mute_id}", status=204)
def delete_mute(request: Request) -> None:
    """End a mute now."""
    mutes.delete(database.connection(), request.actor, _id(request, "mute_id"))


def _id(request: Request, name: str) -> int:
    return validation.convert(request.path[name], Id, root=f"path.{name}")


warmup.warm_up()
