"""`nexmdm devices`: the fleet, one device, its history."""

import contextlib
import itertools
import time
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from nexmdm_cli import addresses
from nexmdm_cli.api import path
from nexmdm_cli.output import Column, ago, clean, duration, shown, when
from nexmdm_cli.session import Session, command

app = typer.Typer(no_args_is_help=True, help="List, show, watch, rename and delete devices.")

Device = Annotated[str, typer.Argument(help="Alias or id.", autocompletion=addresses.complete, metavar="DEVICE")]
Online = Annotated[bool | None, typer.Option("--online/--silent", help="Only devices heard from lately, or not.")]
Prefix = Annotated[str | None, typer.Option("--alias-prefix", help="Only aliases that begin so.")]
Version = Annotated[str | None, typer.Option("--agent-version", help="Only devices with this agent.")]
Status = Annotated[str | None, typer.Option(help="Only devices that report ok, warn or error.", metavar="STATUS")]


def _state(device: dict[str, Any]) -> Text:
    return Text("online", "green") if device["online"] else Text("silent", "red")


def _battery(row: dict[str, Any]) -> Text:
    if row["battery_pct"] is None:
        return Text("")
    style = "red" if row["battery_pct"] < 15 and not row["plugged"] else ""
    return Text(f"{row['battery_pct']} %{' +' if row['plugged'] else ''}", style)


def _unity(row: dict[str, Any]) -> Text:
    if row["unity_running"] is False:
        return Text("down", "red")
    return Text(clean(row["unity_pkg_version"] or shown(row["unity_running"])))


COLUMNS = [
    Column("ALIAS", lambda d: d["alias"], flexible=True),
    Column("STATE", _state),
    Column("SEEN", lambda d: ago(d["last_seen_at"])),
    Column("BATTERY", _battery),
    Column("NETWORK", lambda d: d["network_type"] or ""),
    Column("AGENT", lambda d: d["agent_version"] or ""),
    Column("UNITY", _unity),
    Column("MODEL", lambda d: d["model"] or "", wide=True, flexible=True),
    Column("DEVICE ID", lambda d: d["device_id"], wide=True),
]
HEARTBEATS = [
    Column("TIME", lambda h: when(h["ts"])),
    Column("STATUS", lambda h: h["status"]),
    Column("BATTERY", _battery),
    Column("TEMP", lambda h: shown(h["temp_c"], " °C")),
    Column("NETWORK", lambda h: h["network_type"] or ""),
    Column("SIGNAL", lambda h: shown(h["signal_dbm"], " dBm"), wide=True),
    Column("RAM USED", lambda h: shown(h["ram_used_mb"], " MB"), wide=True),
    Column("UNITY", _unity),
    Column("QUEUE", lambda h: shown(h["queue_depth"])),
]


@command(app, "list")
def list_devices(
    session: Session,
    online: Online = None,
    alias_prefix: Prefix = None,
    agent_version: Version = None,
    status: Status = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; all without it.")] = None,
) -> None:
    """List devices by alias; every page of them.

    \b
    nexmdm devices list --silent
    nexmdm devices list --alias-prefix lobby- --json | jq -r '.[].device_id'
    """
    query = _query(online, alias_prefix, agent_version, status)
    session.out.table(session.api.pages("/v1/devices", query, limit), COLUMNS, "No device fits.")


@command(app)
def show(session: Session, device: Device) -> None:
    """Show a device with its last status."""
    row = addresses.find(session.api, device)
    android = f"Android {row['android_version']}, SDK {row['sdk_int']}" if row["android_version"] else ""
    session.out.fields(
        row,
        [
            ("alias", row["alias"]),
            ("device id", row["device_id"]),
            ("state", _state(row)),
            ("last seen", when(row["last_seen_at"])),
            ("status", row["status"] or ""),
            ("battery", _battery(row)),
            ("temperature", shown(row["temp_c"], " °C")),
            ("network", " ".join(filter(None, (row["network_type"], row["ip"])))),
            ("signal", shown(row["signal_dbm"], " dBm")),
            ("internet", shown(row["net_validated"])),
            ("memory used", shown(row["ram_used_mb"], " MB")),
            ("up for", duration(row["uptime_s"])),
            ("agent", row["agent_version"] or ""),
            ("Unity", _unity(row)),
            ("queued reports", shown(row["queue_depth"])),
            ("doze whitelisted", shown(row["doze_whitelisted"])),
            ("device owner", shown(row["is_device_owner"])),
            ("FCM reaches it", shown(row["has_fcm_token"])),
            ("model", " ".join(filter(None, (row["manufacturer"], row["model"])))),
            ("system", android),
            ("enrolled", when(row["created_at"])),
        ],
    )


@command(app)
def watch(
    session: Session,
    online: Online = None,
    alias_prefix: Prefix = None,
    agent_version: Version = None,
    status: Status = None,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2,
    times: Annotated[int | None, typer.Option(min=1, help="End after so many looks; without it at Ctrl-C.")] = None,
) -> None:
    """Watch devices live, as many as the terminal has lines. With --json: one line for each look."""
    query, live = (
        _query(online, alias_prefix, agent_version, status),
        session.out.is_terminal and not session.out.as_json,
    )
    view = Live(console=session.out.console, auto_refresh=False) if live else None
    # As many devices as fit; a pipe gets all of them.
    lines = max(session.out.console.height - 4, 1) if live else None
    with view or contextlib.nullcontext(), contextlib.suppress(KeyboardInterrupt):
        for look in range(times) if times else itertools.count():
            if look:
                time.sleep(interval)
            fleet = session.api.call("GET", "/v1/fleet/summary")
            seen = _look(session, fleet, list(session.api.pages("/v1/devices", query, lines)))
            if view:
                view.update(seen, refresh=True)
            else:
                session.out.stream(seen)


@command(app)
def heartbeats(
    session: Session,
    device: Device,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
) -> None:
    """List a device's heartbeats, newest first."""
    device_id = addresses.find(session.api, device)["device_id"]
    rows = session.api.pages(path("devices", device_id, "heartbeats"), limit=limit)
    session.out.table(rows, HEARTBEATS, "No heartbeat within retention.")


@command(app)
def rename(
    session: Session, device: Device, alias: Annotated[str, typer.Argument(help="The new alias.", metavar="ALIAS")]
) -> None:
    """Give a device another alias."""
    found = addresses.find(session.api, device)
    renamed = session.api.call("PATCH", path("devices", found["device_id"]), {"alias": alias})
    if session.out.as_json:
        return session.out.json(renamed)
    session.out.line(clean(f"{found['alias']} is {alias} now"))


@command(app)
def delete(
    session: Session,
    devices: Annotated[
        list[str], typer.Argument(help="Aliases or ids.", autocompletion=addresses.complete, metavar="DEVICE")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete devices: their tokens end, their aliases are free again, their history stays for retention."""
    found = [addresses.find(session.api, name) for name in devices]
    names = ", ".join(clean(device["alias"]) for device in found)
    session.confirm(f"Delete {names}? To come back, it has to be enrolled again.", yes)
    for device in found:
        session.api.call("DELETE", path("devices", device["device_id"]))
    if session.out.as_json:
        return session.out.json([{"device_id": d["device_id"], "alias": d["alias"]} for d in found])
    session.out.line(f"deleted {names}")


def _query(
    online: bool | None, alias_prefix: str | None, agent_version: str | None, status: str | None
) -> dict[str, Any]:
    return {"online": online, "alias": alias_prefix, "agent_version": agent_version, "status": status}


def _look(session: Session, fleet: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    if session.out.as_json:
        return {"fleet": fleet, "devices": rows}
    heading = f"{fleet['devices']} devices, {fleet['online']} online, {fleet['silent']} silent"
    more = f" · {len(rows)} shown" if len(rows) < fleet["devices"] else ""
    return Group(Text(heading + more, "bold"), session.out.rendered(rows, COLUMNS))
