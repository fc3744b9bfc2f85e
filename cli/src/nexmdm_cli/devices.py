"""`nexmdm devices`: the fleet, single devices and their history."""

import contextlib
import itertools
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from nexmdm_cli import addresses, fields, labels, selection, tabular
from nexmdm_cli.api import Body, path
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.inputs import content
from nexmdm_cli.output import Column, ago, clean, duration, shown, when
from nexmdm_cli.resources import (
    Device,
    DeviceHistory,
    DevicePoint,
    FilterDocument,
    FleetSummary,
    Heartbeat,
    Imported,
    LabelsChanged,
    Preview,
    Range,
)
from nexmdm_cli.selection import (
    FILTER,
    NARROW,
    DryRun,
    Filter,
    Narrow,
    Yes,
)
from nexmdm_cli.session import Session, command
from nexmdm_cli.sparkline import sparkline
from nexmdm_cli.tabular import Line

app = typer.Typer(no_args_is_help=True, help="List, show, watch, label, rename, import, export and delete devices.")

Name = Annotated[str, typer.Argument(help="Alias or id.", autocompletion=addresses.complete, metavar="DEVICE")]
Status = Annotated[str | None, typer.Option(help="Only devices that report ok, warn or error.", metavar="STATUS")]


def _state(device: Device) -> Text:
    return Text("online", "green") if device.online else Text("silent", "red")


def _battery(row: Device | Heartbeat) -> Text:
    if row.battery_pct is None:
        return Text("")
    style = "red" if row.battery_pct < 15 and not row.plugged else ""
    return Text(f"{row.battery_pct} %{' +' if row.plugged else ''}", style)


def _unity(row: Device | Heartbeat) -> Text:
    if row.unity_running is False:
        return Text("down", "red")
    return Text(clean(row.unity_pkg_version or shown(row.unity_running)))


COLUMNS: list[Column[Device]] = [
    Column("ALIAS", lambda d: d.alias, flexible=True),
    Column("STATE", _state),
    Column("SEEN", lambda d: ago(d.last_seen_at)),
    Column("BATTERY", _battery),
    Column("NETWORK", lambda d: d.network_type or ""),
    Column("AGENT", lambda d: d.agent_version or ""),
    Column("UNITY", _unity),
    Column("MODEL", lambda d: d.model or "", wide=True, flexible=True),
    Column("LABELS", lambda d: labels.shown(d.labels), wide=True, flexible=True),
    Column("DEVICE ID", lambda d: d.device_id, wide=True),
]
HEARTBEATS: list[Column[Heartbeat]] = [
    Column("TIME", lambda h: when(h.ts)),
    Column("STATUS", lambda h: h.status or ""),
    Column("BATTERY", _battery),
    Column("TEMP", lambda h: shown(h.temp_c, " °C")),
    Column("NETWORK", lambda h: h.network_type or ""),
    Column("SIGNAL", lambda h: shown(h.signal_dbm, " dBm"), wide=True),
    Column("RAM USED", lambda h: shown(h.ram_used_mb, " MB"), wide=True),
    Column("UNITY", _unity),
    Column("QUEUE", lambda h: shown(h.queue_depth)),
]

# Label, field, unit, and the values of the lowest and the highest bar (None: the minimum and the maximum).
CHARTS: list[tuple[str, str, str, float | None, float | None]] = [
    ("battery", "battery_pct", " %", 0, 100),
    ("temperature", "temp_c", " °C", None, None),
    ("signal", "signal_dbm", " dBm", None, None),
    ("memory used", "ram_used_mb", " MB", 0, None),
]


@command(app, "list")
def list_devices(
    session: Session,
    chosen: Narrow = NARROW,
    status: Status = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number; all by default.")] = None,
) -> None:
    """List all devices, sorted by alias.

    \b
    nexmdm devices list --silent
    nexmdm devices list -l 'site in (berlin,bonn),role=till'
    nexmdm devices list --alias-prefix lobby- --json | jq -r '.[].device_id'
    """
    query = {**chosen.query(), "status": status}
    session.out.table(session.api.pages(Device, "/v1/devices", query, limit), COLUMNS, "No device matches.")


def _identity(row: Device) -> list[tuple[str, Text]]:
    """Signs that two phones share one identity, or one phone has two."""
    found = []
    if row.token_shared_at:
        said = f"two phones use this device's token, last seen {when(row.token_shared_at)}"
        found.append(("duplicate", Text(said, "red")))
    if row.hardware_id_shared_with:
        others = ", ".join(clean(alias) for alias in row.hardware_id_shared_with)
        found.append(("duplicate", Text(f"{others} has the same hardware id", "red")))
    return found


@command(app)
def show(session: Session, device: Name) -> None:
    """Show a device with its last status."""
    row = addresses.find(session.api, device)
    android = f"Android {row.android_version}, SDK {row.sdk_int}" if row.android_version else ""
    session.out.fields(
        row,
        [
            ("alias", row.alias),
            ("device id", row.device_id),
            ("state", _state(row)),
            ("last seen", when(row.last_seen_at)),
            ("status", row.status or ""),
            ("battery", _battery(row)),
            ("temperature", shown(row.temp_c, " °C")),
            ("network", " ".join(filter(None, (row.network_type, row.ip)))),
            ("signal", shown(row.signal_dbm, " dBm")),
            ("internet", shown(row.net_validated)),
            ("memory used", shown(row.ram_used_mb, " MB")),
            ("up for", duration(row.uptime_s)),
            ("agent", row.agent_version or ""),
            ("app", _unity(row)),
            ("queued reports", shown(row.queue_depth)),
            ("doze whitelisted", shown(row.doze_whitelisted)),
            ("device owner", shown(row.is_device_owner)),
            ("FCM reaches it", shown(row.has_fcm_token)),
            ("labels", labels.shown(row.labels)),
            ("watched app", row.effective_monitored_package or row.monitored_package or ""),
            ("model", " ".join(filter(None, (row.manufacturer, row.model)))),
            ("system", android),
            *((label.lower() if label[1:2].islower() else label, value) for label, value in fields.rows(row)),
            ("enrolled", when(row.created_at)),
            *([("taken over", when(row.taken_over_at))] if row.taken_over_at else []),
            *_identity(row),
        ],
    )


@command(app)
def watch(
    session: Session,
    chosen: Narrow = NARROW,
    status: Status = None,
    interval: Annotated[float, typer.Option(min=0.2, max=86_400, help="Seconds between updates.")] = 2,
    times: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many updates; by default at Ctrl-C.")
    ] = None,
) -> None:
    """Watch devices live, as many as fit into the terminal. With --json: one line per update."""
    query = {**chosen.query(), "status": status}
    live = session.out.is_terminal and not session.out.as_json
    view = Live(console=session.out.console, auto_refresh=False) if live else None
    # As many devices as fit into the terminal; a pipe gets all of them.
    lines = max(session.out.console.height - 4, 1) if live else None
    with view or contextlib.nullcontext(), contextlib.suppress(KeyboardInterrupt):
        for look in range(times) if times else itertools.count():
            if look:
                time.sleep(interval)
            fleet = session.api.read(FleetSummary, "GET", "/v1/fleet/summary", query=chosen.query())
            seen = _look(session, fleet, list(session.api.pages(Device, "/v1/devices", query, lines)))
            if view:
                view.update(seen, refresh=True)
            else:
                session.out.stream(seen)


@command(app)
def heartbeats(
    session: Session,
    device: Name,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number.")] = 20,
) -> None:
    """List a device's heartbeats, newest first."""
    device_id = addresses.find(session.api, device).device_id
    rows = session.api.pages(Heartbeat, path("devices", device_id, "heartbeats"), limit=limit)
    session.out.table(rows, HEARTBEATS, "No heartbeat within the retention period.")


@command(app)
def history(
    session: Session,
    device: Name,
    days: Annotated[int, typer.Option(min=1, max=90, help="Number of days.")] = 7,
) -> None:
    """Show a device's hourly battery, temperature, signal and memory. The history is kept for 90 days.

    nexmdm devices history lobby --days 30
    """
    found = addresses.find(session.api, device)
    to = datetime.now(UTC)
    begin = to.replace(minute=0, second=0, microsecond=0) - timedelta(hours=24 * days - 1)
    query = {"from": begin.isoformat(), "to": to.isoformat()}
    answer = session.api.read(DeviceHistory, "GET", path("devices", found.device_id, "history"), query=query)
    points = {datetime.fromisoformat(point.at): point for point in answer.points}
    hours = [points.get(begin + timedelta(hours=n)) for n in range(24 * days)]
    reports = [point.reports if point else 0 for point in hours]
    pairs: list[tuple[str, str | Text]] = [
        ("alias", clean(found.alias)),
        ("since", when(begin.isoformat())),
        ("reports", f"{sparkline(reports)}  {sum(reports)}"),
    ]
    for label, field, unit, low, high in CHARTS:
        pairs.append((label, _chart(hours, field, unit, low, high)))
    session.out.fields(answer, pairs)


def _chart(hours: list[DevicePoint | None], field: str, unit: str, low: float | None, high: float | None) -> str:
    """Bars of the last value of each hour, followed by minimum, maximum and last value."""
    ranges: list[Range | None] = [getattr(point, field) if point else None for point in hours]
    least = [each.min for each in ranges if each and each.min is not None]
    greatest = [each.max for each in ranges if each and each.max is not None]
    if not least or not greatest:
        return "nothing was reported"
    values = [each.last if each else None for each in ranges]
    last = next((value for value in reversed(values) if value is not None), None)
    bounds = f"{shown(min(least))} to {shown(max(greatest), unit)}"
    return f"{sparkline(values, low, high)}  {bounds}" + (f", last {shown(last, unit)}" if last is not None else "")


@command(app)
def rename(
    session: Session, device: Name, alias: Annotated[str, typer.Argument(help="The new alias.", metavar="ALIAS")]
) -> None:
    """Change a device's alias."""
    found = addresses.find(session.api, device)
    renamed = session.api.call("PATCH", path("devices", found.device_id), {"alias": alias})
    if session.out.as_json:
        return session.out.json(renamed)
    session.out.line(clean(f"{found.alias} is now {alias}"))


@command(app)
def monitor(
    session: Session,
    device: Name,
    package: Annotated[
        str | None,
        typer.Argument(help="The app to monitor; by default its group's, or the stack's.", metavar="PACKAGE"),
    ] = None,
) -> None:
    """Monitor a different app on a device than its group or UNITY_PACKAGE names."""
    found = addresses.find(session.api, device)
    changed = session.api.call("PATCH", path("devices", found.device_id), {"monitored_package": package})
    if session.out.as_json:
        return session.out.json(changed)
    session.out.line(clean(f"{found.alias}: monitoring {package or 'the app of its group or UNITY_PACKAGE'}"))


@command(app)
def label(
    session: Session,
    changes: Annotated[list[str], typer.Argument(help="KEY=VALUE sets, KEY- removes.", metavar="KEY=VALUE")],
    to: Annotated[
        list[str] | None,
        typer.Option("--to", "-t", help="A device's alias or id; may be repeated.", autocompletion=addresses.complete),
    ] = None,
    chosen: Filter = FILTER,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Set and remove labels of devices, all or nothing.

    \b
    nexmdm devices label site=berlin role=till --to till-1 --to till-2
    nexmdm devices label stage=pilot retired- -l 'site=berlin,role=till'
    """
    to_set, to_remove = labels.changes(changes)
    target = _target(session, to or [], chosen.body())
    words = ", ".join([*(f"{key}={value}" for key, value in to_set.items()), *(f"{key}-" for key in to_remove)])
    # No confirmation for devices that were named individually.
    body = selection.agreed(
        session, target, clean(f"Label {words} on"), yes=yes or "device_ids" in target, dry_run=dry_run
    )
    if body is None:
        return None
    change = {**body, "set": to_set, "remove": to_remove}
    done = session.api.read(LabelsChanged, "POST", "/v1/devices/labels", change)
    if session.out.as_json:
        return session.out.json(done.document)
    session.out.line(f"{selection.count(done.device_count)}, {done.changed} changed")


@command(app)
def delete(
    session: Session,
    devices: Annotated[
        list[str] | None, typer.Argument(help="Aliases or ids.", autocompletion=addresses.complete, metavar="DEVICE")
    ] = None,
    chosen: Narrow = NARROW,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete devices: their tokens become invalid, their aliases are free, their history is kept for retention."""
    target = _target(session, devices or [], chosen.body())
    preview = session.api.read(Preview, "POST", "/v1/devices/preview", target)
    if dry_run:
        return selection.show(session, preview)
    if not preview.device_count:
        raise Failure("No device matches.", Code.NOT_FOUND, "Try the same filter with `nexmdm devices list`.")
    names = f"{selection.count(preview.device_count)} ({selection.sample(preview)})"
    session.confirm(f"Delete {names}? A deleted device must be enrolled again to come back.", yes)
    body = {**target, "expect_target_hash": preview.target_hash}
    done = session.api.call("POST", "/v1/devices/delete", body)
    if session.out.as_json:
        return session.out.json(done)
    session.out.line(f"deleted {names}")


@command(app)
def export(
    session: Session,
    chosen: Narrow = NARROW,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on stdout, for a spreadsheet and for import.")] = False,
) -> None:
    """Write all devices with their labels as CSV, or with --json as a list.

    \b
    nexmdm devices export --csv > devices.csv
    """
    rows = session.api.pages(Device, "/v1/devices", chosen.query())
    if session.out.as_json:
        return session.out.json([row.document for row in rows])
    if not as_csv:
        raise Failure("No format was given.", Code.USAGE, "Give --csv or --json.")
    session.out.document(tabular.written(rows))


@command(app, "import")
def import_devices(
    session: Session,
    file: Annotated[str, typer.Argument(help="The file; - is stdin.", metavar="FILE")],
    as_csv: Annotated[bool, typer.Option("--csv", help="The file is CSV, as written by export.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every line without changing anything.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Import the valid lines, in several requests if there are many.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Set aliases and labels of devices from a CSV file, all or nothing.

    A line identifies its device by device_id, or by alias if there is none. `labels` contains all labels of the device
    as one JSON object; an empty cell leaves them unchanged. Other columns are ignored.

    \b
    nexmdm devices export --csv > devices.csv
    nexmdm devices import --csv devices.csv --dry-run
    nexmdm devices import --csv devices.csv
    """
    try:
        rows, errors = tabular.read(content(file))
    except OSError as error:
        raise Failure(f"The file cannot be read: {error.strerror}.", Code.USAGE) from None
    parts = list(tabular.chunks(rows))
    if len(parts) > 1 and not partial:
        raise Failure(
            "The file is too large for one request, which is limited to 1 MiB and 10,000 lines.",
            Code.REFUSED,
            "With --partial it is sent in several requests; each is applied completely or not at all.",
        )
    if errors and not partial:
        raise _lines(errors)
    # The whole file is checked before its first part is imported.
    checked = [_import(session, part, True, partial, errors) for part in parts]
    changed = sum(done.changed for done, _ in checked)
    if not dry_run and changed:
        session.confirm(f"Change {selection.count(changed)}?", yes)
        checked = [_import(session, part, False, partial, errors) for _, part in checked if part]
    count, changed = sum(done.device_count for done, _ in checked), sum(done.changed for done, _ in checked)
    if session.out.as_json:
        session.out.json({"device_count": count, "changed": changed, "dry_run": dry_run, "errors": errors})
    else:
        verb = "would change" if dry_run else "changed"
        session.out.line(f"{selection.count(count)}, {changed} {verb}")
    if errors:
        raise _lines(errors)


def _import(
    session: Session, part: list[Line], dry_run: bool, partial: bool, errors: list[str]
) -> tuple[Imported, list[Line]]:
    """The API's response and the imported lines; invalid lines are added to `errors`."""
    while part:
        body = {"devices": [row for _, row in part], "dry_run": dry_run}
        try:
            return session.api.read(Imported, "POST", "/v1/devices/import", body), part
        except Failure as failure:
            found = {}
            for error in failure.errors:
                place = re.match(r"\$\.devices\[(\d+)\]\.?(.*)", error["path"])
                if place:
                    field = f"{place[2]}: " if place[2] else ""
                    found[int(place[1])] = f"line {part[int(place[1])][0]}: {field}{error['detail']}"
            if not found:
                raise
            errors += found.values()
            if not partial:
                raise _lines(errors) from None
            part = [row for n, row in enumerate(part) if n not in found]
    return Imported(device_count=0, changed=0), part


def _lines(errors: list[str]) -> Failure:
    shown_errors = errors[:20]
    more = [f"and {len(errors) - 20} more"] if len(errors) > 20 else []
    heading = f"{len(errors)} invalid line{'s' if len(errors) != 1 else ''}:"
    return Failure("\n".join([heading, *shown_errors, *more]), Code.REFUSED)


def _target(session: Session, names: list[str], conditions: FilterDocument) -> Body:
    """Devices by name, or a filter.

    Raises:
        Failure: neither or both were given.
    """
    if bool(names) == bool(conditions):
        raise Failure("No devices were given.", Code.USAGE, f"Name them, or give a filter: {selection.OPTIONS}.")
    if conditions:
        return {"filter": conditions}
    return {"device_ids": [addresses.find(session.api, name).device_id for name in names]}


def _look(session: Session, fleet: FleetSummary, rows: list[Device]) -> Any:
    if session.out.as_json:
        return {"fleet": fleet.document, "devices": [row.document for row in rows]}
    heading = f"{fleet.devices} devices, {fleet.online} online, {fleet.silent} silent"
    more = f" · {len(rows)} shown" if len(rows) < fleet.devices else ""
    return Group(Text(heading + more, "bold"), session.out.rendered(rows, COLUMNS))
