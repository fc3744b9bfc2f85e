"""The API's responses, with the members that the CLI reads.

A response may come from a stack of another version: `document` keeps members that are not named here, for --json;
unknown values of an enumeration are plain text; members that an earlier version did not have are absent. Each Struct
has the name of its schema in the API's document; a test compares the two.
"""

from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from nexmdm_cli.failures import IS_IT_ONE, Code, Failure

# A JSON object as received, or as printed.
Document: TypeAlias = dict[str, Any]
# A number as it was written: 85 is shown as 85, and 85.0 as 85.0.
Number: TypeAlias = int | float
# A filter of devices: members of the API's Filter.
FilterDocument: TypeAlias = dict[str, Any]
# The parameters of a command, as defined by its action.
Params: TypeAlias = dict[str, Any]
# The values of an alert or an event, by name.
Details: TypeAlias = dict[str, Any]


class Resource(Struct, kw_only=True, dict=True):
    """An object in the API's responses. A nested object has no document of its own."""

    @property
    def document(self) -> Document:
        """The whole object, as received."""
        document: Document = self.__dict__["document"]
        return document


R = TypeVar("R", bound=Resource)


def read(type_: type[R], document: object) -> R:
    """The object in a response.

    Raises:
        Failure: the response is not such an object.
    """
    try:
        found = msgspec.convert(document, type_)
    except msgspec.ValidationError as error:
        raise Failure(f"The response does not fit {type_.__name__}: {error}.", Code.UNAVAILABLE, IS_IT_ONE) from None
    found.__dict__["document"] = document
    return found


class Page(Resource):
    """A part of a list, or all of it."""

    items: list[Document]
    next_cursor: str | None = None


class Device(Resource):
    """An enrolled device. Further reported fields are in the document, see `fields`."""

    device_id: str
    alias: str
    created_at: str
    online: bool
    has_fcm_token: bool
    labels: dict[str, str]
    hardware_id_shared_with: list[str] = []
    last_seen_at: str | None = None
    taken_over_at: str | None = None
    token_shared_at: str | None = None
    monitored_package: str | None = None
    effective_monitored_package: str | None = None
    status: str | None = None
    ip: str | None = None
    battery_pct: int | None = None
    plugged: bool | None = None
    temp_c: Number | None = None
    network_type: str | None = None
    signal_dbm: int | None = None
    net_validated: bool | None = None
    ram_used_mb: int | None = None
    uptime_s: int | None = None
    agent_version: str | None = None
    unity_pkg_version: str | None = None
    unity_running: bool | None = None
    queue_depth: int | None = None
    doze_whitelisted: bool | None = None
    is_device_owner: bool | None = None
    model: str | None = None
    manufacturer: str | None = None
    android_version: str | None = None
    sdk_int: int | None = None


class Heartbeat(Resource):
    ts: str
    status: str | None = None
    battery_pct: int | None = None
    plugged: bool | None = None
    temp_c: Number | None = None
    network_type: str | None = None
    signal_dbm: int | None = None
    ram_used_mb: int | None = None
    unity_pkg_version: str | None = None
    unity_running: bool | None = None
    queue_depth: int | None = None


class Range(Struct):
    """Values of one hour; all are None if nothing was reported."""

    min: Number | None = None
    max: Number | None = None
    last: Number | None = None


class DevicePoint(Resource):
    at: str
    reports: int
    battery_pct: Range
    temp_c: Range
    signal_dbm: Range
    ram_used_mb: Range


class DeviceHistory(Resource):
    points: list[DevicePoint]


class Preview(Resource):
    device_count: int
    sample: list[str]
    target_hash: str


class LabelsChanged(Resource):
    device_count: int
    changed: int


class Imported(Resource):
    device_count: int
    changed: int


class LabelValueCount(Struct):
    value: str


class LabelKeyCount(Resource):
    key: str
    values: list[LabelValueCount]


class FleetSummary(Resource):
    devices: int
    online: int
    silent: int
    low_battery: int
    unity_down: int
    device_owners: int
    by_agent_version: dict[str, int] | None = None


class Point(Resource):
    """The fleet at one time, or the average of a day."""

    online: Number


class History(Resource):
    points: list[Point]


class AppVersion(Struct):
    device_count: int
    version_name: str | None = None
    version_code: int | None = None


class FleetApp(Resource):
    package: str
    versions: list[AppVersion]


class DeviceApp(Resource):
    package: str
    installed: bool
    first_seen_at: str
    version_name: str | None = None
    version_code: int | None = None
    removed_at: str | None = None


class Group(Resource):
    name: str
    filter: FilterDocument
    device_count: int
    created_at: str
    created_by: str
    updated_at: str
    updated_by: str
    monitored_package: str | None = None


class AuditEntry(Struct):
    event: str
    at: str | None = None
    by: str | None = None
    reason: str | None = None


class Dispatch(Resource):
    """A command for one device."""

    request_id: str
    device_id: str
    action: str
    state: str
    delivery: str
    attempts: int
    created_at: str
    expires_at: str
    answer_withheld: bool
    params: Params | None = None
    audit: list[AuditEntry] = []
    answered: str | None = None
    created_by: str | None = None
    fcm_message_id: str | None = None
    error_msg: str | None = None
    completed_at: str | None = None
    result: str | None = None
    result_message: str | None = None
    batch_id: str | None = None


class Batch(Resource):
    """A bulk command, with the number of its commands in each state."""

    request_id: str
    device_count: int
    states: dict[str, int]
    selector: Document
    created_at: str
    created_by: str | None = None


def command(document: Document) -> Dispatch | Batch:
    """A command or a bulk command; only the latter has counts of states."""
    return read(Batch, document) if "states" in document else read(Dispatch, document)


class CommandResult(Resource):
    request_id: str
    device_id: str
    action: str
    params: Params
    state: str
    completed_at: str | None = None
    result: str | None = None
    result_message: str | None = None


class Violation(Struct):
    request_id: str
    state: str
    rule: str


class Audit(Resource):
    checked: int
    exempt: int
    violations: int
    first: Violation | None = None


class Statistics(Struct):
    """Counts of installations. The document may have others."""

    completed: int
    failed: int


class Stage(Struct):
    percent: int


class PlanStatus(Struct):
    stages: list[Stage]
    stage: int
    stage_at: str
    end: str | None = None


class Build(Resource):
    build_id: int
    package_name: str
    version_name: str
    version_code: int
    file_size: int
    uploaded_at: str
    state: str
    is_current: bool
    staged_rollout_percent: int
    audit: list[AuditEntry]
    statistics: Statistics
    build_type: str | None = None
    sha256: str | None = None
    signer_fingerprint: str | None = None
    source: str | None = None
    ci_run_id: str | None = None
    git_sha: str | None = None
    notes: str | None = None
    refusal: str | None = None
    rollout_filter: FilterDocument | None = None
    paused_at: str | None = None
    paused_reason: str | None = None
    plan: PlanStatus | None = None
    warnings: list[str] = []


class DeclaredBuild(Resource):
    build_id: int
    state: str
    upload_url: str | None = None
    upload_headers: dict[str, str] | None = None


class InstallCommands(Resource):
    """The bulk command of a rollout; without a `request_id` no device was asked."""

    device_count: int
    states: dict[str, int]
    cohort_devices: int
    newer_devices: int
    request_id: str | None = None


class InstallingBuild(Build):
    install: InstallCommands | None = None


class Installation(Resource):
    alias: str
    status: str
    initiated_at: str
    ended_at: str | None = None
    error: str | None = None


class DownloadAddress(Resource):
    download_url: str
    sha256: str
    file_size: int


class Signer(Resource):
    fingerprint: str
    pinned_at: str
    pinned_by: str | None = None


class EnrollmentToken(Resource):
    token_id: str
    alias: str
    scope: str
    status: str
    uses_consumed: int
    uses_allowed: int
    issued_at: str
    expires_at: str
    note: str | None = None


class NewEnrollmentToken(Resource):
    """A new token with its secret."""

    token_id: str
    alias: str
    token: str
    expires_at: str


class Revoked(Resource):
    revoked: list[str]


class Run(Resource):
    scheduled_for: str
    status: str
    states: dict[str, int] = {}
    request_id: str | None = None


class Schedule(Resource):
    name: str
    action: str
    params: Params
    timezone: str
    filter: FilterDocument
    ttl_seconds: int
    delivery: str
    enabled: bool
    next_runs: list[str]
    created_by: str
    cron: str | None = None
    at: str | None = None
    next_run_at: str | None = None
    last_run: Run | None = None


class QuietHours(Struct, rename={"from_": "from"}):
    from_: str
    to: str
    timezone: str


class Rule(Resource):
    name: str
    condition: str
    for_seconds: int = 0
    severity: str = ""
    priority: int = 100
    enabled: bool = True
    routes: list[str] = []
    filter: FilterDocument | None = None
    threshold: Number | None = None
    quiet_hours: QuietHours | None = None


class Alert(Resource):
    alert_id: int
    device_id: str
    alias: str
    condition: str
    severity: str
    state: str
    since: str
    muted: bool
    detail: Details | None = None
    rule: str | None = None
    notified_at: str | None = None
    recovered_at: str | None = None
    acked_at: str | None = None
    ack_note: str | None = None


class Mute(Resource):
    mute_id: int
    until: str
    filter: FilterDocument
    reason: str
    created_by: str
    condition: str | None = None


class Event(Resource):
    event_id: int
    at: str
    actor: str
    action: str
    object: str
    session: str | None = None
    ip: str | None = None
    before: Details | None = None
    after: Details | None = None
