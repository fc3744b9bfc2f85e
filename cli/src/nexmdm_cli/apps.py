"""`nexmdm apps`: installed apps, by package or by device."""

from typing import Annotated

import typer

from nexmdm_cli import addresses
from nexmdm_cli.api import path
from nexmdm_cli.output import Column, ago, shown
from nexmdm_cli.resources import AppVersion, DeviceApp, FleetApp, Resource, read
from nexmdm_cli.selection import NARROW, Narrow
from nexmdm_cli.session import Session, command

app = typer.Typer(no_args_is_help=True, help="Show which apps are installed, and where.")

Package = Annotated[str | None, typer.Argument(help="Only this package.", metavar="[PACKAGE]")]
Device = Annotated[str, typer.Argument(help="Alias or id.", autocompletion=addresses.complete, metavar="DEVICE")]


class Installed(AppVersion, Resource, kw_only=True):
    """An app in one of its versions."""

    package: str


FLEET: list[Column[Installed]] = [
    Column("PACKAGE", lambda row: row.package, flexible=True),
    Column("VERSION", lambda row: row.version_name or ""),
    Column("CODE", lambda row: shown(row.version_code)),
    Column("DEVICES", lambda row: str(row.device_count)),
]
OF_DEVICE: list[Column[DeviceApp]] = [
    Column("PACKAGE", lambda row: row.package, flexible=True),
    Column("VERSION", lambda row: row.version_name or ""),
    Column("CODE", lambda row: shown(row.version_code)),
    Column("INSTALLED", lambda row: _installed(row)),
    Column("FIRST SEEN", lambda row: ago(row.first_seen_at), wide=True),
]


def _installed(row: DeviceApp) -> str:
    if row.installed:
        return "yes"
    return f"removed {ago(row.removed_at)}" if row.removed_at else "no"


@command(app, "list")
def list_apps(
    session: Session,
    package: Package = None,
    chosen: Narrow = NARROW,
) -> None:
    """List installed apps, one line per version.

    \b
    nexmdm apps list io.unitynodes.unityapp
    nexmdm apps list -l site=berlin --json
    """
    query = {**chosen.query(), "package": package}
    versions = (
        read(Installed, {"package": app.package, **version})
        for app in session.api.pages(FleetApp, "/v1/apps", query)
        for version in app.document["versions"]
    )
    session.out.table(versions, FLEET, "No app matches.")


@command(app)
def device(session: Session, device: Device) -> None:
    """List the apps of one device, including removed ones."""
    device_id = addresses.find(session.api, device).device_id
    found = session.api.pages(DeviceApp, path("devices", device_id, "apps"))
    session.out.table(found, OF_DEVICE, "The device has reported no apps.")
