"""Check the histories of all commands against the state machine, in one statement."""

import msgspec

from nexmdm.commands.single import Count
from nexmdm.commands.states import DispatchState
from nexmdm.runtime.database import Executor, statement
from nexmdm.runtime.validation import Instant


class AuditQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """since: only commands that were accepted at this instant or later."""

    since: Instant | None = None


class Violation(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A command with an impossible history; `rule` is the first rule of docs/guarantees.md that it breaks."""

    request_id: str
    device_id: str
    state: DispatchState
    created_at: Instant
    rule: str


class Audit(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Of the `checked` commands, `exempt` are from an adopted database and `violations` break a rule; `first` is the
    oldest violation."""

    checked: Count
    exempt: Count
    violations: Count
    first: Violation | None


def audit(db: Executor, query: AuditQuery) -> Audit:
    """Check every command's history against the rules of the state machine."""
    return msgspec.convert(db.execute(_AUDIT, {"since": query.since}, repeatable=True)[0], Audit)


_AUDIT = statement(__package__, "audit")
