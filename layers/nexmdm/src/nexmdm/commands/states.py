"""The states of a dispatch, and how a command is delivered."""

from enum import StrEnum


class DispatchState(StrEnum):
    """Where a dispatch, the row of one device, stands. docs/commands.md shows the transitions."""

    # Stored by the request that asked for it, and not sent yet. A sender claims it (sending), an operator cancels it
    # (cancelled), or its life ends first (expired).
    ACCEPTED = "accepted"
    # Claimed by one sender under a fence and a lease; the claim is committed before any byte leaves. The holder of the
    # fence settles it (sent, failed, retry_wait, unknown); the sweep ends a passed lease (unknown), and never sends it.
    SENDING = "sending"
    # FCM took the message, or the device answered. Final, except that an operator may resend what was not answered, and
    # that the sweep claims an until_answered command again until it is answered or expires.
    SENT = "sent"
    # FCM refused the message for good. An operator may resend it.
    FAILED = "failed"
    # FCM certainly did not take the message. A sender claims it when `next_at` comes (sending), an operator cancels it
    # (cancelled), or its life ends first (expired).
    RETRY_WAIT = "retry_wait"
    # FCM may have the message: its answer was lost or unclear, or the sender did not come back. A late holder of the
    # fence may still settle it; an operator resends or cancels it; the sweep repeats it when it is until_answered.
    UNKNOWN = "unknown"
    # Its life ended before it was sent. An operator may resend it.
    EXPIRED = "expired"
    # An operator cancelled it, or the device was enrolled again. Final.
    CANCELLED = "cancelled"


class Delivery(StrEnum):
    """How often a command is sent by itself."""

    # One message whose outcome is accepted or unknown; only an operator sends it again.
    AT_MOST_ONCE = "at_most_once"
    # Listed at every heartbeat and sent again, under the same request_id, until the device answers or the command
    # expires.
    UNTIL_ANSWERED = "until_answered"


class Answered(StrEnum):
    """Whether and when the agent in the field answers an action."""

    # Within seconds of running it.
    AT_ONCE = "at_once"
    # With its next heartbeat, up to an interval later; a ping makes it report at once.
    WITH_HEARTBEAT = "with_heartbeat"
    # Not at all: `sent` is the last that is known.
    NEVER = "never"


class RunStatus(StrEnum):
    """What became of one instant of a schedule. Written once, by the sweep or by an operator's run."""

    # Its bulk command was made, in the same transaction.
    STARTED = "started"
    # It came due during an outage and was found later than MISFIRE_GRACE_SECONDS; one row stands for the outage.
    MISSED = "missed"
    # Its filter matched no device, so there is no command.
    EMPTY = "empty"
