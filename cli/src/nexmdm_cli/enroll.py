"""`nexmdm enroll`: enrollment tokens, and the QR codes and scripts that enroll phones."""

from pathlib import Path
from typing import Annotated, NamedTuple

import httpx
import typer
from rich.text import Text

from nexmdm_cli import addresses, inputs, labels, qr
from nexmdm_cli.api import Api, Body, path
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.kit import Kit, packages
from nexmdm_cli.output import Column, ago, clean, when
from nexmdm_cli.resources import Build, Device, EnrollmentToken, NewEnrollmentToken, Revoked
from nexmdm_cli.selection import Prefix
from nexmdm_cli.session import Session, command

app = typer.Typer(
    no_args_is_help=True, help="Create enrollment tokens with QR codes and scripts; list and revoke tokens."
)

Seconds = Annotated[int, typer.Option("--expires-in", min=60, help="Seconds for which the tokens are valid.")]
Label = Annotated[
    list[str] | None,
    typer.Option("--label", help="A label that the devices get; may be repeated.", metavar="KEY=VALUE"),
]
Folder = Annotated[
    Path | None, typer.Option("--png", help="Also write the codes as PNG into this folder.", metavar="DIR")
]
DeviceOwner = Annotated[
    bool, typer.Option("--device-owner", help="Also print Android's provisioning code for factory-reset phones.")
]
ServerUrl = Annotated[
    str | None, typer.Option(help="The URL that phones use, if it differs from yours.", metavar="https://…")
]
HmacKey = Annotated[
    str | None, typer.Option(envvar="NEXMDM_HMAC_PRIMARY_KEY", help="COMMAND_HMAC_KEY of the stack, for the ADB line.")
]
NextHmacKey = Annotated[
    str | None, typer.Option(envvar="NEXMDM_HMAC_ROTATION_KEY", help="The key that will replace it, for the ADB line.")
]
Component = Annotated[
    str,
    typer.Option(envvar="AGENT_ADMIN_COMPONENT", help="The agent's device admin receiver.", metavar="PACKAGE/CLASS"),
]
ScriptFolder = Annotated[
    Path | None,
    typer.Option(
        "--script",
        help="Also write a shell script per alias to this folder; it sets up a phone connected by cable.",
        metavar="DIR",
    ),
]
Disable = Annotated[
    Path | None,
    typer.Option(
        "--disable-packages",
        help="A file with packages that the scripts disable on the phone, one per line.",
        metavar="FILE",
    ),
]
# Google lets only approved device policy controllers install apps while a phone is provisioned by QR code.
ALLOWLIST = (
    "Android may refuse this code: Google lets only approved agents (its DPC allowlist) install apps while a phone is"
    " provisioned by QR code, and a build of your own is not on that list unless Google has accepted it. With a cable"
    " every agent works: `nexmdm enroll create ALIAS --script DIR`, or on a phone without accounts"
    " `adb install agent.apk` and `adb shell dpm set-device-owner {component}`. How to appeal: docs/device.md."
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")

COLUMNS: list[Column[EnrollmentToken]] = [
    Column("TOKEN ID", lambda t: t.token_id),
    Column("ALIAS", lambda t: t.alias, flexible=True),
    Column("SCOPE", lambda t: t.scope, wide=True),
    Column("STATUS", lambda t: t.status),
    Column("USED", lambda t: f"{t.uses_consumed}/{t.uses_allowed}"),
    Column("EXPIRES", lambda t: when(t.expires_at), wide=True),
    Column("ISSUED", lambda t: ago(t.issued_at)),
    Column("NOTE", lambda t: t.note or "", wide=True, flexible=True),
]
MOST_TOKENS = 500  # per call


@command(app)
def create(
    session: Session,
    aliases: Annotated[list[str], typer.Argument(help="The aliases of the devices.", metavar="ALIAS")],
    expires_in: Seconds = 1800,
    uses: Annotated[int, typer.Option(min=1, help="How many devices may use each token.")] = 1,
    note: Annotated[str | None, typer.Option(help="A note that is stored with the tokens.")] = None,
    label: Label = None,
    png: Folder = None,
    script: ScriptFolder = None,
    disable_packages: Disable = None,
    device_owner: DeviceOwner = False,
    wifi_ssid: Annotated[str | None, typer.Option(help="The WiFi network in the provisioning code.")] = None,
    wifi_password: Annotated[str | None, typer.Option(envvar="NEXMDM_WIFI_PASSWORD", help="Its password.")] = None,
    hmac_primary_key: HmacKey = None,
    hmac_rotation_key: NextHmacKey = None,
    admin_component: Component = qr.ADMIN_COMPONENT,
    server_url: ServerUrl = None,
) -> None:
    """Create a token for each alias and print a QR code for the agent and a command line for adb.

    For a factory-reset phone connected by cable, --script writes a shell script that does everything: it installs the
    agent's current build, makes it device owner, grants the permissions it needs and enrolls it. --device-owner prints
    a code for phones without a cable: tap the welcome screen six times to scan it; then the agent scans the code of the
    alias. Android accepts the provisioning code only for agents that Google has approved.

    \b
    nexmdm enroll create lobby
    nexmdm enroll create till-1 till-2 --label site=berlin --label role=till
    nexmdm enroll create kiosk-1 kiosk-2 --script kit --disable-packages bloat.txt
    nexmdm enroll create kiosk-1 kiosk-2 --png codes --device-owner --wifi-ssid kiosks
    nexmdm enroll create lobby --json | jq -r '.items[0].token'
    """
    out, api = session.out, session.api
    _folder_for(png, "--png")
    _folder_for(script, "--script")
    disabled = _packages(disable_packages)
    url = (server_url or api.stack.url).rstrip("/")
    wanted: Body = {"expires_in_sec": expires_in, "note": note}
    wifi = _wifi(wifi_ssid, wifi_password)
    agent = _agent(api, admin_component) if device_owner or script else None
    keys = _keys(hmac_primary_key, hmac_rotation_key)
    phone = _provisioning(api, url, admin_component, agent, wanted) if device_owner and agent else None
    tokens = _tokens(api, {**wanted, "aliases": aliases, "uses_allowed": uses, "labels": labels.only_set(label or [])})
    codes = {"device-owner": qr.device_owner(phone, wifi)} if phone else {}
    contents = {token.token_id: qr.enrollment(url, token.token, token.alias) for token in tokens}
    codes |= {qr.file_name(token.alias): contents[token.token_id] for token in tokens}
    files, unwritten = _saved(codes, png) if png else ([], None)
    scripts = (
        _scripts(api, url, admin_component, agent, wanted, tokens, keys, disabled, script) if script and agent else []
    )
    made = _Made(tokens, contents, codes.get("device-owner"), files, scripts, png)
    if out.as_json:
        # A given password is not printed again.
        masked = {name: "***" if name == "PASSWORD" else value for name, value in wifi.items()}
        owner = {"qr_content": qr.device_owner(phone, masked)} if phone else None
        items = [{**token.document, "qr_content": contents[token.token_id]} for token in tokens]
        out.json({"items": items, "device_owner": owner, "png": files, "scripts": scripts})
    else:
        _print_made(session, url, admin_component if phone else None, keys, made)
    _complain(unwritten)


class _Made(NamedTuple):
    """The results of `create`: tokens, the contents of their codes by token id, and the files with images and
    scripts."""

    tokens: list[NewEnrollmentToken]
    contents: dict[str, str]
    device_owner: str | None
    files: list[str]
    scripts: list[str]
    png: Path | None


def _print_made(session: Session, url: str, component: str | None, keys: dict[str, str], made: _Made) -> None:
    """Print the codes and command lines; `component` is set if the first code makes the agent device owner."""
    out = session.out
    if httpx.URL(url).host in LOOPBACK:
        out.note(f"A phone cannot reach {url}, which is local to this machine. Give another URL with --server-url.")
    if component and made.device_owner:
        out.note(ALLOWLIST.format(component=component))
        _show(session, "1. On the welcome screen of a factory-reset phone", made.device_owner, made.png)
    for token in made.tokens:
        title = f"{'2. ' if component else ''}{token.alias}: scan with the agent, until {when(token.expires_at)}"
        _show(session, title, made.contents[token.token_id], made.png)
        out.line(Text(qr.adb_line(url, token.token, token.alias, keys)))
    for file in made.files:
        out.line(f"\n{file}")
    for file in made.scripts:
        out.line(f"\nsh {file}")


@command(app, "rotate-keys")
def rotate_keys(
    session: Session,
    devices: Annotated[
        list[str] | None, typer.Argument(help="Aliases or ids.", autocompletion=addresses.complete, metavar="DEVICE")
    ] = None,
    hmac_primary_key: HmacKey = None,
    hmac_rotation_key: NextHmacKey = None,
    alias_prefix: Prefix = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every device.")] = False,
    expires_in: Seconds = 86_400,
    server_url: ServerUrl = None,
) -> None:
    """Print adb command lines that install a new HMAC key on phones.

    The existing agent accepts a key only when it registers, so each phone needs an enrollment token for its alias and
    is enrolled again: its device is kept, its open commands are cancelled. Give every phone the new key as rotation key
    while COMMAND_HMAC_KEY is still the old one, then change COMMAND_HMAC_KEY. A phone that was enrolled by QR code has
    no key and does not check signatures until its line has been run.

    \b
    nexmdm enroll rotate-keys --all --hmac-primary-key OLD --hmac-rotation-key NEW
    nexmdm enroll rotate-keys lobby hall --hmac-primary-key OLD --hmac-rotation-key NEW
    """
    out, api = session.out, session.api
    keys = _keys(hmac_primary_key, hmac_rotation_key)
    if "hmac_primary_key" not in keys or "hmac_rotation_key" not in keys:
        raise Failure(
            "Give both keys: --hmac-primary-key is the current COMMAND_HMAC_KEY, --hmac-rotation-key the new one.",
            Code.USAGE,
        )
    aliases = _aliases(api, devices or [], alias_prefix, everyone)
    url = (server_url or api.stack.url).rstrip("/")
    wanted: Body = {"expires_in_sec": expires_in, "note": "rotation of the HMAC key"}
    tokens = [
        token
        for start in range(0, len(aliases), MOST_TOKENS)
        for token in _tokens(api, {**wanted, "aliases": aliases[start : start + MOST_TOKENS]})
    ]
    lines = {token.alias: qr.adb_line(url, token.token, token.alias, keys) for token in tokens}
    if out.as_json:
        return out.json({"items": [{**token.document, "adb_line": lines[token.alias]} for token in tokens]})
    for alias, line in lines.items():
        out.line(Text(f"# {clean(alias)}"))
        out.line(Text(line))
    out.note(
        f"{len(lines)} phones. After running each line for its phone, set COMMAND_HMAC_KEY to the new key;"
        " see docs/operations.md."
    )


@command(app, "list")
def list_tokens(session: Session, limit: Annotated[int, typer.Option(min=1, help="Maximum number.")] = 50) -> None:
    """List tokens, newest first. Their secrets are not stored anywhere."""
    session.out.table(
        session.api.pages(EnrollmentToken, "/v1/enroll-tokens", limit=limit), COLUMNS, "There are no tokens."
    )


@command(app)
def revoke(
    session: Session,
    token_ids: Annotated[list[str], typer.Argument(help="Ids from `enroll list`.", metavar="TOKEN_ID")],
) -> None:
    """Revoke tokens, effective on the next call."""
    revoked = session.api.read(Revoked, "POST", "/v1/enroll-tokens/batch-delete", {"token_ids": token_ids}).revoked
    if session.out.as_json:
        session.out.json({"revoked": revoked})
    else:
        for token_id in revoked:
            session.out.line(f"revoked {token_id}")
    if unknown := sorted(set(token_ids) - set(revoked)):
        raise Failure(
            f"There is no enrollment token {', '.join(unknown)}.", Code.NOT_FOUND, "See `nexmdm enroll list`."
        )


def _tokens(api: Api, wanted: Body) -> list[NewEnrollmentToken]:
    body = {name: value for name, value in wanted.items() if value is not None}
    # The secrets are only in this response: a second attempt would create other tokens.
    return api.items(NewEnrollmentToken, "POST", path("enroll-tokens"), body, repeatable=False)


def _agent(api: Api, component: str) -> Build:
    """The build that a new phone downloads. If there is none, no token is created."""
    package_name = component.partition("/")[0]
    query = {"package_name": package_name, "build_type": "release", "current": True}
    current = next(api.pages(Build, "/v1/apk/builds", query, limit=1), None)
    if current is None:
        raise Failure(
            f"No build of {package_name} is promoted, so a new phone would have nothing to download.",
            Code.NOT_FOUND,
            "`nexmdm builds publish agent.apk`, then `nexmdm builds promote ID`.",
        )
    number = current.build_id
    if current.paused_at:
        raise Failure(
            f"The rollout of {package_name} {current.version_name} is paused, so no new phone would be offered it.",
            Code.REFUSED,
            f"`nexmdm builds resume {number}`, or promote another build.",
        )
    if current.rollout_filter:
        raise Failure(
            f"{package_name} {current.version_name} is offered to chosen devices only,"
            " and a new phone is not one of them.",
            Code.REFUSED,
            f"`nexmdm builds rollout {number} 100 --all`, or promote another build.",
        )
    if current.staged_rollout_percent < 100:
        raise Failure(
            f"{package_name} {current.version_name} is offered to {current.staged_rollout_percent} % of the fleet"
            " only, and a new phone may not be one of them.",
            Code.REFUSED,
            f"`nexmdm builds rollout {number} 100`, or promote another build.",
        )
    return current


def _provisioning(api: Api, url: str, component: str, agent: Build, wanted: Body) -> qr.Agent:
    """The provisioning values of a factory-reset phone, except for its WiFi network."""
    token = _tokens(api, {**wanted, "aliases": ["device owner"], "scope": "apk_download"})[0].token
    return qr.Agent(
        component=component,
        download_url=qr.download_url(url, token, component.partition("/")[0]),
        signer_fingerprint=agent.signer_fingerprint or "",
    )


def _scripts(
    api: Api,
    url: str,
    component: str,
    agent: Build,
    wanted: Body,
    tokens: list[NewEnrollmentToken],
    keys: dict[str, str],
    disabled: list[str],
    folder: Path,
) -> list[str]:
    """Write the scripts and return their files. One token lets each of them download the agent at most twice."""
    uses = {"uses_allowed": min(2 * len(tokens), 100_000)}
    fetch = _tokens(api, {**wanted, **uses, "aliases": ["enrollment scripts"], "scope": "apk_download"})[0].token
    package_name = component.partition("/")[0]
    kits = {
        token.alias: Kit(
            server_url=url,
            admin_key=token.token,
            token_id=token.token_id,
            alias=token.alias,
            package=package_name,
            admin_component=component,
            receiver=qr.RECEIVER,
            version_name=agent.version_name,
            version_code=str(agent.version_code),
            apk=f"{package_name}-{agent.version_code}.apk",
            sha256=agent.sha256 or "",
            download_url=qr.download_url(url, fetch, package_name),
            disable="\n".join(disabled),
            **keys,
        )
        for token in tokens
    }
    try:
        return [str(kit.save(folder, qr.file_name(alias))) for alias, kit in kits.items()]
    except OSError as error:
        raise Failure(
            f"--script: not every script could be written: {error.strerror}.",
            hint="The tokens are valid: `nexmdm enroll list` shows them, `nexmdm enroll revoke` ends them.",
        ) from None


def _aliases(api: Api, devices: list[str], alias_prefix: str | None, everyone: bool) -> list[str]:
    """The aliases of the chosen devices."""
    if sum((bool(devices), alias_prefix is not None, everyone)) != 1:
        raise Failure("Choose devices: name them, or give --alias-prefix, or --all.", Code.USAGE)
    if devices:
        return [addresses.find(api, name).alias for name in dict.fromkeys(devices)]
    query = {"alias": alias_prefix} if alias_prefix is not None else {}
    found = [device.alias for device in api.pages(Device, "/v1/devices", query)]
    if not found:
        raise Failure("No device matches.", Code.NOT_FOUND, "See `nexmdm devices list`.")
    return found


def _keys(primary: str | None, rotation: str | None) -> dict[str, str]:
    """The given keys, under the names of the agent's extras."""
    given = {"hmac_primary_key": inputs.secret(primary or ""), "hmac_rotation_key": inputs.secret(rotation or "")}
    return {name: key for name, key in given.items() if key}


def _packages(file: Path | None) -> list[str]:
    try:
        return packages(inputs.content(str(file)).decode()) if file else []
    except (OSError, ValueError) as error:
        raise Failure(f"--disable-packages: {error}", Code.USAGE) from None


def _folder_for(folder: Path | None, option: str) -> None:
    """Create the folder before any token, so that a folder that is not writable wastes none."""
    try:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"{option}: the folder cannot be created: {error.strerror}.", Code.USAGE) from None


def _saved(codes: dict[str, str], folder: Path) -> tuple[list[str], OSError | None]:
    """The written files, and the error if not all could be written. The tokens exist and are shown in any case."""
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
