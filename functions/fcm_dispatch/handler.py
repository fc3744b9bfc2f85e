"""Commands and schedules: accept, send, show, cancel and resend; and the sweep."""

import time
from collections.abc import Callable
from typing import Annotated, Any

from msgspec import Meta, Struct
from nexmdm.builds import installations, plans
from nexmdm.commands import actions, audit, batches, message, queue, relaunch, schedules, single
from nexmdm.commands.actions import Params
from nexmdm.commands.audit import Audit, AuditQuery
from nexmdm.commands.batches import Batch
from nexmdm.commands.schedules import NewSchedule, Run, Schedule, ScheduleChange
from nexmdm.commands.single import (
    Command,
    CommandResult,
    CommandsQuery,
    Dispatch,
    OneDevice,
    RequestId,
    Selected,
    Target,
)
from nexmdm.commands.states import Delivery
from nexmdm.devices import targets
from nexmdm.devices.filters import Filter
from nexmdm.devices.targets import DeviceIds, TargetHash, Targets
from nexmdm.runtime import actor, database, invocations, logs, metrics, settings, warmup
from nexmdm.runtime.errors import Forbidden, Malformed, Unavailable
from nexmdm.runtime.http import Request, Response, Routes
from nexmdm.runtime.pagination import Page, PageQuery

from functions.fcm_dispatch import sending

routes = Routes()

REPLAYED = {"Idempotency-Replayed": "true"}
# Accepted, or already known and returned in its current state.
ONCE = {202: (), 200: ("Idempotency-Replayed",)}
LONGEST_DEVICE_ID = "0" * 64


class CommandBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """`params` are the action's parameters. The idempotency key is `request_id` or the Idempotency-Key header."""

    action: str
    params: Params = {}
    ttl_seconds: queue.Ttl = queue.DEFAULT_TTL_SECONDS
    delivery: Delivery = Delivery.AT_MOST_ONCE
    request_id: RequestId | None = None


class BulkBody(CommandBody, kw_only=True):
    """A command for the named devices, or for those that the filter selects when the request arrives.

    Attributes:
        expect_target_hash: `target_hash` of a preview; nothing is sent if the devices have changed since.
    """

    device_ids: DeviceIds | None = None
    filter: Filter | None = None
    expect_target_hash: TargetHash | None = None


class ResendBody(Struct, forbid_unknown_fields=True):
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    ttl_seconds: queue.Ttl = queue.DEFAULT_TTL_SECONDS


def handler(event: dict[str, object], context: Any) -> Any:
    """Handle an HTTP request or the scheduled sweep."""
    return routes.handle(event, context) if "routeKey" in event else sweep(event, context)


@invocations.named
def sweep(event: dict[str, object], context: Any) -> dict[str, int]:
    """End expired leases, expire overdue commands, send due ones. Two concurrent sweeps do no harm.

    {"after_restore": true} sends nothing; it marks open commands of a restored database as `unknown`
    (docs/operations.md).
    """
    logs.begin(context.aws_request_id, context.function_name)
    database.begin(context)
    db, config = database.connection(), settings.load()
    itself = actor.system("sweep", context.aws_request_id)
    try:
        if event.get("after_restore") is True:
            return {"unknown": queue.after_restore(db, itself)}
        report = {"unknown": queue.end_leases(db), "expired": queue.expire(db, itself)}
        sending.prepare()

        def left() -> float:
            return float(context.get_remaining_time_in_millis() / 1000)

        # Due commands come first, so that they are sent regardless of errors in schedules.
        report["sent"] = sending.drain(db, config, left)
        report["started"] = schedules.start_due(db, itself, config, left() / 4)
        report["relaunched"] = relaunch.relaunch(db, itself, config)
        report["installations"] = installations.settle(db, config, itself)
        report["stages"] = plans.advance(db, config, itself)
        if report["started"] or report["relaunched"] or report["stages"]:
            report["sent"] += sending.drain(db, config, left)
        metrics.seconds("OldestOpenDispatchAge", queue.oldest_open_seconds(db))
        return report
    finally:
        metrics.flush()


@routes("POST /v1/devices/{device_id}/commands", statuses=ONCE, problems=(409,), key=RequestId)
def command_device(request: Request, body: CommandBody) -> Response[Dispatch]:
    """Send a command to one device.

    A command is created once per request_id: repeating the key with the same command returns 200 with the current
    state. The command is committed before it is sent to FCM; if it cannot be sent now, the sweep sends it until
    `ttl_seconds` have passed.
    """
    device_id = request.path["device_id"]
    command = _command(request, body, OneDevice(device_id))
    message.check_size(command.message(device_id, command.request_id))
    db, config = database.connection(), settings.load()
    row, new = single.accept(db, command)
    if not new:
        return Response(row, 200, REPLAYED)
    sending.prepare()
    if request.remaining_seconds > sending.send_budget_seconds(config):
        claim = queue.claim(db, command.request_id, config.dispatch_lease_seconds)
        if claim:
            sending.send(db, claim, config)
    return Response(single.show(db, command.request_id), 202)


@routes("POST /v1/commands", statuses=ONCE, problems=(409,), key=RequestId)
def command_many(request: Request, body: BulkBody) -> Response[Batch]:
    """Send a command to many devices.

    Give either `device_ids` or `filter`, which is evaluated once. Commands that are not sent within the request are
    sent by the sweep. The request_ids of the individual commands are `request_id:device_id`.
    """
    selector = targets.canonical(Targets(device_ids=body.device_ids, filter=body.filter))
    command = _command(request, body, Selected(selector))
    message.check_size(command.message(LONGEST_DEVICE_ID, f"{command.request_id}:{LONGEST_DEVICE_ID}"))
    db, config = database.connection(), settings.load()
    interval, expected = config.heartbeat_interval_seconds, body.expect_target_hash
    new = batches.accept(db, command, interval, expect_target_hash=expected)
    if new:
        sending.prepare()
        sending.drain(db, config, _inline_seconds(request, config), batch_id=command.request_id)
    batch = batches.show(db, command.request_id)
    return Response(batch, 202) if new else Response(batch, 200, REPLAYED)


@routes("GET /v1/commands")
def list_commands(request: Request, query: CommandsQuery) -> Page[Dispatch]:
    """List commands, newest first."""
    return single.list_commands(database.connection(), query)


@routes("GET /v1/commands/{request_id}")
def show_command(request: Request) -> Dispatch | Batch:
    """Show a command, or a bulk command with the number of devices in each state."""
    db, request_id = database.connection(), request.path["request_id"]
    return batches.show(db, request_id) or single.show(db, request_id)


@routes("GET /v1/commands/{request_id}/result")
def show_result(request: Request) -> CommandResult:
    """Show a device's command and its answer, in full.

    Shell commands and their output are shown only by this route, which the viewer policy denies. Secret parameters stay
    masked.
    """
    return single.result(database.connection(), request.path["request_id"])


@routes("GET /v1/audit/commands")
def audit_commands(request: Request, query: AuditQuery) -> Audit:
    """Check the history of every command against the state machine, and name the first that breaks a rule."""
    return audit.audit(database.connection(), query)


@routes("POST /v1/commands/{request_id}/cancel", problems=(409,))
def cancel_command(request: Request) -> Dispatch | Batch:
    """Cancel a command that may still be sent and is not being sent now; for a bulk command, all such commands in
    it."""
    db, request_id = database.connection(), request.path["request_id"]
    if batches.show(db, request_id) is None:
        return single.cancel(db, request_id, request.actor)
    batches.cancel(db, request_id, request.actor)
    return batches.show(db, request_id) or single.show(db, request_id)


@routes("POST /v1/commands/{request_id}/resend", statuses=ONCE, problems=(409,), key=RequestId)
def resend_command(request: Request, body: ResendBody) -> Response[Dispatch]:
    """Send a command again under the same request_id.

    For a command whose outcome is unknown, or that failed, expired or was not answered. `audit` records who resent it,
    when, and the reason. An `Idempotency-Key` makes it safe to retry this request.
    """
    request_id = request.path["request_id"]
    key = request.idempotency_key(RequestId)
    db, config = database.connection(), settings.load()
    row = single.show(db, request_id)
    if key is not None and single.was_resent(row, key):
        return Response(row, 200, REPLAYED)
    sending.prepare()
    if request.remaining_seconds <= sending.send_budget_seconds(config):
        raise Unavailable("There was not enough time left to send. Try again.", retry_after=1)
    claim = queue.claim_again(
        db,
        request_id,
        lease_seconds=config.dispatch_lease_seconds,
        ttl_seconds=body.ttl_seconds,
        actor=request.actor,
        reason=body.reason,
        key=key,
    )
    if claim is None:
        raise single.refuse_resend(db, request_id)
    sending.send(db, claim, config)
    return Response(single.show(db, request_id), 202)


@routes("POST /v1/schedules", status=201, problems=(409,))
def create_schedule(request: Request, body: NewSchedule) -> Schedule:
    """Create a schedule for a recurring or one-time command.

    It runs at the instants of `cron` in `timezone`, or once at `at`; the minute sweep starts it. Each run is a bulk
    command whose filter is evaluated when the run starts. A local time that daylight saving skips runs at the first
    instant after the gap, and a repeated one runs the first time; if minutes or hours begin with `*`, each real instant
    counts.
    """
    return schedules.create(database.connection(), body, request.actor, settings.load())


@routes("GET /v1/schedules")
def list_schedules(request: Request, query: PageQuery) -> Page[Schedule]:
    """List schedules, sorted by name, with their next runs and their last run."""
    return schedules.list_schedules(database.connection(), query)


@routes("GET /v1/schedules/{name}")
def show_schedule(request: Request) -> Schedule:
    """Show a schedule with its next runs and its last run."""
    return schedules.show(database.connection(), request.path["name"])


@routes("PATCH /v1/schedules/{name}")
def change_schedule(request: Request, body: ScheduleChange) -> Schedule:
    """Change, enable or disable a schedule. Its next run changes only with its times."""
    return schedules.change(database.connection(), request.path["name"], body, request.actor, settings.load())


@routes("DELETE /v1/schedules/{name}", status=204)
def delete_schedule(request: Request) -> Response[None]:
    """Delete a schedule. Commands that it has sent are kept."""
    schedules.delete(database.connection(), request.path["name"], request.actor)
    return Response(status=204)


@routes("POST /v1/schedules/{name}/run", statuses=ONCE, problems=(409,), key=RequestId)
def run_schedule(request: Request) -> Response[Run]:
    """Run a schedule now, once per Idempotency-Key. Its next run is not affected."""
    db, config = database.connection(), settings.load()
    run, new = schedules.run_now(db, request.path["name"], request.idempotency_key(RequestId), request.actor, config)
    if new and run.request_id:
        sending.prepare()
        sending.drain(db, config, _inline_seconds(request, config), batch_id=run.request_id)
    return Response(run, 202) if new else Response(run, 200, REPLAYED)


@routes("GET /v1/schedules/{name}/runs")
def list_runs(request: Request, query: PageQuery) -> Page[Run]:
    """List the runs of a schedule, newest first."""
    return schedules.list_runs(database.connection(), request.path["name"], query)


def _command(request: Request, body: CommandBody, target: Target) -> Command[Target]:
    """The requested command with its idempotency key.

    Raises:
        Malformed: no key was given.
        Invalid: a field is invalid, or two different keys were given.
        Forbidden: the action is switched off.
    """
    if body.action == "remote_exec_shell" and not settings.load().remote_exec_shell_enabled:
        raise Forbidden("remote_exec_shell is switched off. Set REMOTE_EXEC_SHELL_ENABLED to allow it.")
    key = request.idempotency_key(RequestId, body.request_id)
    if key is None:
        raise Malformed(
            "Give an `Idempotency-Key` header or a `request_id`, so that a retry does not create a second command."
        )
    params = actions.parameters(body.action, body.params)
    return Command(key, target, body.action, params, body.ttl_seconds, request.actor, body.delivery)


def _inline_seconds(request: Request, config: settings.Settings) -> Callable[[], float]:
    """The remaining time of a bulk request, which sends for BULK_INLINE_SECONDS before the sweep takes over."""
    stop = time.monotonic() + config.bulk_inline_seconds + sending.send_budget_seconds(config)
    return lambda: min(request.remaining_seconds, stop - time.monotonic())


warmup.warm_up(sending.load_firebase)
