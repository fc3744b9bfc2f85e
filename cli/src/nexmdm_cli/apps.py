"""`nexmdm apps`: installed apps, by package or by device."""

from typing import Annotated, Any

import typer

from nexmdm_cli import addresses
from nexmdm_cli.api import path
from nexmdm_cli.output import Column, ago, shown
from nexmdm_cli.selection import NARROW, Narrow
from nexmdm_cli.session import Session, command

app = typer.Typer(no_args_is_help=True, help="Show which apps are installed, and where.")

Package = Annotated[str | None, typer.Argument(help="Only this package.", metavar="[PACKAGE]")]
Device = Annotated[str, typer.Argument(help="Alias or id.", autocompletion=addresses.complete, metavar="DEVICE")]

FLEET = [
    Column("PACKAGE", lambda row: row["package"], flexible=True),
    Column("VERSION", lambda row: row["version_name"] or ""),
    Column("CODE", lambda row: shown(row["version_code"])),
    Column("DEVICES", lambda row: str(row["device_count"])),
]
OF_DEVICE = [
    Column("PACKAGE", lambda row: row["package"], flexible=True),
    Column("VERSION", lambda row: row["version_name"] or ""),
    Column("CODE", lambda row: shown(row["version_code"])),
    Column("INSTALLED", lambda row: _installed(row)),
    Column("FIRST SEEN", lambda row: ago(row["first_seen_at"]), wide=True),
]


def _installed(row: dict[str, Any]) -> str:
    if row["installed"]:
        return "yes"
    return f"removed {ago(row['removed_at'])}" if row["removed_at"] else "no"


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
        {"package": row["package"], **version}
        for row in session.api.pages("/v1/apps", query)
        for version in row["versions"]
    )
    session.out.table(versions, FLEET, "No app matches.")


@command(app)
def device(session: Session, device: Device) -> None:
    """List the apps of one device, including removed ones."""
    device_id = addresses.find(session.api, device)["device_id"]
    session.out.table(
        session.api.pages(path("devices", device_id, "apps")), OF_DEVICE, "The device has reported no apps."
    )
