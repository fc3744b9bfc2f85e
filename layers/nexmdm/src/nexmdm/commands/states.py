"""The states of a dispatch, and how a command is delivered."""

from enum import StrEnum


class DispatchState(StrEnum):
    """The state of a dispatch, the row of one device. docs/commands.md shows the transitions."""

    # Stored by the operator's request, and not sent yet. A sender claims it (sending), an operator cancels it
    # (cancelled), or its time to live ends first (expired).
    ACCEPTED = "accepted"
    # Claimed by one sender with a fence and a lease; the claim is committed before any byte is sent. The holder of the
    # fence settles it (sent, failed, retry_wait, unknown); the sweep ends an expired lease (unknown), and never sends
    # it.
    SENDING = "sending"
    # FCM accepted the message, or the device answered. Final, except that an operator may resend an unanswered command,
    # and that the sweep claims an until_answered command again until it is answered or expires.
    SENT = "sent"
    # FCM rejected the message permanently. An operator may resend it.
    FAILED = "failed"
    # FCM certainly did not accept the message. A sender claims it at `next_at` (sending), an operator cancels it
    # (cancelled), or its time to live ends first (expired).
    RETRY_WAIT = "retry_wait"
    # FCM may have the message: its response was lost or unclear, or the sender died. A late holder of the fence may
    # still settle it; an operator resends or cancels it; the sweep repeats it if it is until_answered.
    UNKNOWN = "unknown"
    # Its time to live ended before it was sent. An operator may resend it.
    EXPIRED = "expired"
    # An operator cancelled it or rolled its build back, or the device was enrolled again. Final.
    CANCELLED = "cancelled"


class Delivery(StrEnum):
    """How often a command is sent automatically."""

    # At most one message that was or may have been accepted; only an operator sends it again.
    AT_MOST_ONCE = "at_most_once"
    # Listed at every heartbeat (of a device's commands the 20 that expire soonest) and sent again, under the same
    # request_id, until the device answers or the command expires.
    UNTIL_ANSWERED = "until_answered"


class Answered(StrEnum):
    """Whether and when the existing agent answers an action."""

    # Within seconds of running it.
    AT_ONCE = "at_once"
    # With its next heartbeat, up to an interval later; a ping triggers a heartbeat at once.
    WITH_HEARTBEAT = "with_heartbeat"
    # Never: `sent` is the last known state.
    NEVER = "never"


class RunStatus(StrEnum):
    """The outcome of one instant of a schedule. Written once, by the sweep or by an operator's run."""

    # Its bulk command was created, in the same transaction.
    STARTED = "started"
    # It was due during an outage and found later than MISFIRE_GRACE_SECONDS or together with a later run, or was due
    # when an operator changed the times of the schedule or disabled it. One row represents all runs that were due.
    MISSED = "missed"
    # Its filter matched no device, so there is no command.
    EMPTY = "empty"
