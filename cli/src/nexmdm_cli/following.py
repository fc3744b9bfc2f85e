"""Following commands until they settle."""

import secrets
import time
from typing import TypeAlias

from nexmdm_cli.api import Api, path
from nexmdm_cli.failures import Failure
from nexmdm_cli.output import Output, clean, shown, when
from nexmdm_cli.resources import Batch, Dispatch, Document, InstallCommands, command

OPEN = ("accepted", "sending", "retry_wait")
# The agent's results that mean failure; all others mean success.
BAD_RESULTS = {"error", "failed", "failure", "timeout", "denied"}
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
# Seconds after which a ping fetches a queued answer: an app starts within two seconds, WiFi connects within ten.
PINGS_AFTER = (2.0, 12.0, 30.0)
UNREPORTED = "sent; the agent does not report the result of this action"
# A command that was asked for, for one device or for many.
Sent: TypeAlias = Dispatch | Batch


def is_settled(row: Sent) -> bool:
    """The device has answered, never answers, or will not receive it; for a bulk command, nothing is left to send."""
    if isinstance(row, Batch):
        return not any(row.states.get(state) for state in OPEN)
    if row.state == "sent" and row.answered == "never":
        return True
    return row.completed_at is not None or row.state in ("failed", "expired", "cancelled")


def is_sent(row: Sent) -> bool:
    """FCM has responded, with any result."""
    return is_settled(row) or (isinstance(row, Dispatch) and row.state not in OPEN)


def follow(api: Api, out: Output, row: Sent, *, until_sent: bool, timeout: float, fetch: bool = False) -> Sent:
    """The row when it has settled, or after the timeout.

    Args:
        fetch: send a ping if the answer comes with the device's next heartbeat, because a ping triggers one.
    """
    start, pause = time.monotonic(), FIRST_PAUSE
    pings = list(PINGS_AFTER) if fetch else []
    enough = is_sent if until_sent else is_settled
    with out.progress(said(row)) as progress:
        while not enough(row) and time.monotonic() < start + timeout:
            time.sleep(min(pause, max(0.0, start + timeout - time.monotonic())))
            pause = min(pause * 1.3, LONGEST_PAUSE)
            row = command(api.call("GET", path("commands", row.request_id)))
            if (
                pings
                and time.monotonic() >= start + pings[0]
                and isinstance(row, Dispatch)
                and _waits_for_heartbeat(row)
            ):
                pings.pop(0)
                ping = {"action": "ping", "ttl_seconds": 60}
                api.call("POST", path("devices", row.device_id, "commands"), ping, key=f"fetch-{secrets.token_hex(8)}")
            progress(said(row))
    return row


def _waits_for_heartbeat(row: Dispatch) -> bool:
    return row.state == "sent" and row.answered == "with_heartbeat" and not row.completed_at


def said(row: Sent) -> str:
    """The state of a command, in one line."""
    if isinstance(row, Batch):
        return counted(row)
    if row.completed_at:
        return f"answered: {clean(row.result or '')} {clean(row.result_message or '')}".rstrip()
    if row.state == "sent" and row.answered == "never":
        return UNREPORTED
    why = f": {row.error_msg}" if row.error_msg and row.state != "sent" else ""
    if row.state == "sent" and row.answered == "with_heartbeat":
        return "sent, waiting for the device's answer, which comes with its next heartbeat"
    waiting = ", waiting for the device's answer" if row.state == "sent" else ""
    return f"{row.state}{why}{waiting}"


def counted(row: Batch | InstallCommands) -> str:
    """Where a bulk command stands, in a line."""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(row.states.items()))
    return f"{row.device_count} devices: {counts}"


def judge(row: Sent, until_sent: bool = False) -> None:
    """Return if the command succeeded.

    Raises:
        Failure: it failed or has not settled.
    """
    request_id = row.request_id
    look = f"Check again with `nexmdm commands show {request_id}`."
    if isinstance(row, Batch):
        bad = {
            state: count
            for state, count in row.states.items()
            if state in ("failed", "expired", "cancelled", "unknown")
        }
        if not is_settled(row):
            raise Failure(f"Not all commands are sent yet: {said(row)}.", hint=look)
        if bad:
            counts = ", ".join(f"{count} {state}" for state, count in bad.items())
            raise Failure(
                f"Of {row.device_count}: {counts}.", hint=f"See which: `nexmdm commands list --batch {request_id}`."
            )
        return
    if row.completed_at:
        if (row.result or "").lower() in BAD_RESULTS:
            raise Failure(f"The device answered {said(row).removeprefix('answered: ')}.")
        return
    if row.state == "sent" and (until_sent or row.answered == "never"):
        return
    raise Failure(f"{request_id} is {said(row)}.", hint=_advice(row, look))


def _advice(row: Dispatch, look: str) -> str:
    resend = f"`nexmdm commands resend {row.request_id} --reason …`"
    return {
        "unknown": f"FCM may have it. Check whether the device ran it; if not, {resend} sends it again.",
        "failed": f"Fix the cause that FCM names, then {resend} sends it again.",
        "expired": f"The device was not reached in time; {resend} sends it again.",
    }.get(row.state, look)


def pairs(row: Sent) -> list[tuple[str, str]]:
    """The fields of a command or a bulk command for `Output.fields`."""
    if isinstance(row, Batch):
        return [
            ("request id", row.request_id),
            ("devices", str(row.device_count)),
            *[(state, str(count)) for state, count in sorted(row.states.items())],
            ("to", _selected(row.selector)),
            ("by", row.created_by or ""),
            ("created", when(row.created_at)),
        ]
    history = [f"{entry.event} {when(entry.at)} by {entry.by} {entry.reason or ''}".strip() for entry in row.audit]
    return [
        ("request id", row.request_id),
        ("device id", row.device_id),
        ("action", row.action),
        ("parameters", ", ".join(f"{name}={shown(value)}" for name, value in (row.params or {}).items())),
        (
            "state",
            UNREPORTED if row.state == "sent" and is_settled(row) and not row.completed_at else row.state,
        ),
        ("delivery", row.delivery.replace("_", " ")),
        ("result", " ".join(filter(None, (row.result, row.result_message)))),
        ("full answer", f"nexmdm commands result {row.request_id}" if row.answer_withheld else ""),
        ("answered", when(row.completed_at)),
        ("error", row.error_msg or ""),
        ("attempts", str(row.attempts)),
        ("FCM message", row.fcm_message_id or ""),
        ("created", when(row.created_at)),
        ("expires", when(row.expires_at) if not row.completed_at else ""),
        ("by", row.created_by or ""),
        ("batch", row.batch_id or ""),
        ("history", "\n".join(history)),
    ]


def _selected(selector: Document) -> str:
    """A description of the selector; ids are counted, because there may be many."""
    if "device_ids" in selector:
        return f"{len(selector['device_ids'])} named devices"
    conditions = selector.get("filter", selector)
    if conditions.get("all"):
        return "every device"
    return ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in conditions.items())
