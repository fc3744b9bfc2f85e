"""`nexmdm enroll`: tokens, and the QR codes that bring a phone in."""

from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.text import Text

from nexmdm_cli import inputs, labels, qr
from nexmdm_cli.api import Api, path
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.output import Column, ago, clean, when
from nexmdm_cli.session import Session, command

app = typer.Typer(no_args_is_help=True, help="Make enrollment tokens with their QR codes; list and revoke them.")

Seconds = Annotated[int, typer.Option("--expires-in", min=60, help="Seconds for which the tokens are valid.")]
Folder = Annotated[
    Path | None, typer.Option("--png", help="Also write the codes as PNG into this folder.", metavar="DIR")
]
ServerUrl = Annotated[
    str | None, typer.Option(help="The address that phones use, when it is not the one you use.", metavar="https://…")
]
HmacKey = Annotated[
    str | None, typer.Option(envvar="NEXMDM_HMAC_PRIMARY_KEY", help="COMMAND_HMAC_KEY of the stack, for the ADB line.")
]
NextHmacKey = Annotated[
    str | None, typer.Option(envvar="NEXMDM_HMAC_ROTATION_KEY", help="The key that comes after it, for the ADB line.")
]
Component = Annotated[
    str,
    typer.Option(envvar="AGENT_ADMIN_COMPONENT", help="The agent's device admin receiver.", metavar="PACKAGE/CLASS"),
]
LOOPBACK = ("127.0.0.1", "localhost", "::1")

COLUMNS = [
    Column("TOKEN ID", lambda t: t["token_id"]),
    Column("ALIAS", lambda t: t["alias"], flexible=True),
    Column("SCOPE", lambda t: t["scope"], wide=True),
    Column("STATUS", lambda t: t["status"]),
    Column("USED", lambda t: f"{t['uses_consumed']}/{t['uses_allowed']}"),
    Column("EXPIRES", lambda t: when(t["expires_at"]), wide=True),
    Column("ISSUED", lambda t: ago(t["issued_at"])),
    Column("NOTE", lambda t: t["note"] or "", wide=True, flexible=True),
]


@command(app)
def create(
    session: Session,
    aliases: Annotated[list[str], typer.Argument(help="What the devices will be called.", metavar="ALIAS")],
    expires_in: Seconds = 1800,
    uses: Annotated[int, typer.Option(min=1, help="How many devices may use each token.")] = 1,
    note: Annotated[str | None, typer.Option(help="Kept with the tokens.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="A label that the devices get; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    png: Folder = None,
    device_owner: Annotated[
        bool, typer.Option("--device-owner", help="Also Android's provisioning code for factory-reset phones.")
    ] = False,
    wifi_ssid: Annotated[str | None, typer.Option(help="Wi-Fi in the provisioning code.")] = None,
    wifi_password: Annotated[str | None, typer.Option(envvar="NEXMDM_WIFI_PASSWORD", help="Its password.")] = None,
    hmac_primary_key: HmacKey = None,
    hmac_rotation_key: NextHmacKey = None,
    admin_component: Component = qr.ADMIN_COMPONENT,
    server_url: ServerUrl = None,
) -> None:
    """Make a token for each alias and print what brings the phone in: a QR code for the agent, and a line for adb.

    A factory-reset phone first scans the code of --device-owner: tap its welcome screen six times. It fetches the
    agent's current build and makes it device owner; then the agent scans the alias's own code.

    \b
    nexmdm enroll create lobby
    nexmdm enroll create till-1 till-2 --label site=berlin --label role=till
    nexmdm enroll create kiosk-1 kiosk-2 --png codes --device-owner --wifi-ssid kiosks
    nexmdm enroll create lobby --json | jq -r '.items[0].token'
    """
    out, api = session.out, session.api
    _folder_for(png)
    url = (server_url or api.stack.url).rstrip("/")
    wanted = {"expires_in_sec": expires_in, "note": note}
    wifi = _wifi(wifi_ssid, wifi_password)
    phone = _provisioning(api, url, admin_component, wanted) if device_owner else None
    tokens = _tokens(api, {**wanted, "aliases": aliases, "uses_allowed": uses, "labels": labels.only_set(label or [])})
    codes = {"device-owner": qr.device_owner(**phone, wifi=wifi)} if phone else {}
    for token in tokens:
        token["qr_content"] = qr.enrollment(url, token["token"], token["alias"])
        codes[qr.file_name(token["alias"])] = token["qr_content"]
    files, unwritten = _saved(codes, png) if png else ([], None)
    if out.as_json:
        # A password that was given is not repeated.
        masked = {name: "***" if name == "PASSWORD" else value for name, value in wifi.items()}
        owner = {"qr_content": qr.device_owner(**phone, wifi=masked)} if phone else None
        out.json({"items": tokens, "device_owner": owner, "png": files})
        return _complain(unwritten)
    if httpx.URL(url).host in LOOPBACK:
        out.note(f"A phone cannot reach {url}: it is this machine's own. --server-url names another address.")
    if phone:
        _show(session, "1. On the welcome screen of a factory-reset phone", codes["device-owner"], png)
    keys = {"hmac_primary_key": hmac_primary_key or "", "hmac_rotation_key": hmac_rotation_key or ""}
    for token in tokens:
        title = f"{'2. ' if phone else ''}{token['alias']}: scan with the agent, until {when(token['expires_at'])}"
        _show(session, title, token["qr_content"], png)
        given = {name: inputs.secret(key) for name, key in keys.items() if inputs.secret(key)}
        out.line(Text(qr.adb_line(url, token["token"], token["alias"], given)))
    for file in files:
        out.line(f"\n{file}")
    _complain(unwritten)


@command(app, "list")
def list_tokens(session: Session, limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50) -> None:
    """List tokens, newest first. Their secrets are stored nowhere."""
    session.out.table(session.api.pages("/v1/enroll-tokens", limit=limit), COLUMNS, "There is no token.")


@command(app)
def revoke(
    session: Session,
    token_ids: Annotated[list[str], typer.Argument(help="Ids of `enroll list`.", metavar="TOKEN_ID")],
) -> None:
    """Revoke tokens, effective on the next call."""
    revoked = session.api.call("POST", "/v1/enroll-tokens/batch-delete", {"token_ids": token_ids})["revoked"]
    if session.out.as_json:
        session.out.json({"revoked": revoked})
    else:
        for token_id in revoked:
            session.out.line(f"revoked {token_id}")
    if unknown := sorted(set(token_ids) - set(revoked)):
        raise Failure(
            f"There is no enrollment token {', '.join(unknown)}.", Code.NOT_FOUND, "See `nexmdm enroll list`."
        )


def _tokens(api: Api, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    body = {name: value for name, value in wanted.items() if value is not None}
    # The secrets are in this one answer: a second try would make other tokens.
    return api.call("POST", path("enroll-tokens"), body, repeatable=False)["items"]


def _provisioning(api: Api, url: str, component: str, wanted: dict[str, Any]) -> dict[str, str]:
    """What a factory-reset phone is told besides its Wi-Fi. No token is made when there is nothing to fetch with it."""
    package_name = component.partition("/")[0]
    query = {"package_name": package_name, "build_type": "release", "current": True}
    current = next(api.pages("/v1/apk/builds", query, limit=1), None)
    if current is None:
        raise Failure(
            f"No build of {package_name} is promoted, so a new phone would have nothing to fetch.",
            Code.NOT_FOUND,
            "`nexmdm builds publish agent.apk`, then `nexmdm builds promote ID`.",
        )
    token = _tokens(api, {**wanted, "aliases": ["device owner"], "scope": "apk_download"})[0]["token"]
    return {
        "component": component,
        "download_url": qr.download_address(url, token),
        "signer_fingerprint": current["signer_fingerprint"],
    }


def _folder_for(png: Path | None) -> None:
    """Make it before any token: a folder that cannot be written to must not cost one."""
    try:
        if png:
            png.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"--png: the folder cannot be made: {error.strerror}.", Code.USAGE) from None


def _saved(codes: dict[str, str], folder: Path) -> tuple[list[str], OSError | None]:
    """The files that were written, and why not all were. The tokens exist, and are shown whatever becomes of these."""
    files: list[str] = []
    try:
        files.extend(str(qr.save(content, folder, name)) for name, content in codes.items())
    except OSError as error:
        return files, error
    return files, None


def _complain(unwritten: OSError | None) -> None:
    if unwritten:
        raise Failure(f"Not every PNG could be written: {unwritten.strerror}.", hint="The tokens above are valid.")


def _wifi(ssid: str | None, password: str | None) -> dict[str, str]:
    if ssid is None:
        return {}
    password = password and password.rstrip("\r\n")
    return {"SSID": ssid, **({"PASSWORD": password, "SECURITY_TYPE": "WPA"} if password else {"SECURITY_TYPE": "NONE"})}


def _show(session: Session, title: str, content: str, png: Path | None) -> None:
    session.out.line(Text(f"\n{clean(title)}\n", "bold"))
    if not qr.draw(session.out, content):
        hint = "it is in the PNG" if png else "make it wider, or write it as PNG with --png DIR"
        session.out.note(f"The terminal is too narrow for this code: {hint}.")
