"""`nexmdm builds`: publish, roll out in stages, roll back, inspect and download builds."""

import contextlib
import itertools
import secrets
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from nexmdm_cli import addresses, apk, following, groups, selection, transfers
from nexmdm_cli.api import path
from nexmdm_cli.apk import Described
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.output import Column, ago, clean, when
from nexmdm_cli.selection import DryRun, Filter, InGroup, Narrow, Prefix, Selector, Yes
from nexmdm_cli.session import Session, command

app = typer.Typer(no_args_is_help=True, help="Publish builds, roll them out or back, download them.")

Build = Annotated[int, typer.Argument(help="The build's id.", metavar="BUILD_ID")]
Reason = Annotated[str, typer.Option(help="The reason, which is recorded.")]
File = Annotated[Path, typer.Argument(help="The signed APK.", exists=True, dir_okay=False, metavar="FILE.apk")]
STYLES = {"published": "green", "refused": "red", "declared": "yellow", "awaiting_signer": "yellow"}


INSTALLATIONS = [
    Column("DEVICE", lambda i: clean(i["alias"]), flexible=True),
    Column("STATUS", lambda i: Text(i["status"], {"completed": "green", "failed": "red"}.get(i["status"], ""))),
    Column("ASKED", lambda i: ago(i["initiated_at"])),
    Column("ENDED", lambda i: ago(i["ended_at"])),
    Column("ERROR", lambda i: clean(i["error"] or ""), flexible=True),
]


def _stage(text: str) -> dict[str, Any]:
    """`5:24:90` is 5 percent, for at least 24 hours, and until 90 percent of the asked devices have the build."""
    names = ("percent", "hold_hours", "min_completed_percent")
    parts = text.split(":")
    try:
        values = [int(parts[0]), *map(float, parts[1:2]), *map(int, parts[2:])]
        return dict(zip(names[: len(values)], values, strict=True))
    except ValueError:
        raise Failure(
            f"{text!r} is not a stage.", Code.USAGE, "Give percent:hours, such as 5:24; the last stage is 100."
        ) from None


def _window(text: str) -> dict[str, Any]:
    try:
        days, hours, timezone = text.split()
        begin, end = hours.split("-")
    except ValueError:
        hint = "Give days, hours and a time zone: 'fri,sat 22:00-04:00 Europe/Berlin'."
        raise Failure(f"{text!r} is not a window.", Code.USAGE, hint) from None
    return {"days": days.split(","), "from": begin, "to": end, "timezone": timezone}


def _say_who_is_not_asked(session: Session, asked: dict[str, Any]) -> None:
    """Explain why no or fewer devices are asked: the cohort may be empty, or have newer versions."""
    if not asked["cohort_devices"]:
        session.out.note("No device is asked: no device is within this percentage.")
    elif not asked["request_id"]:
        session.out.note(
            f"No device is asked: all {asked['cohort_devices']} devices run the build or were already asked."
        )
    if asked["newer_devices"]:
        session.out.note(
            f"{asked['newer_devices']} run a newer version and are not asked: Android would reject the build."
        )


def _plan(build: dict[str, Any]) -> str:
    plan = build["plan"]
    if plan is None:
        return ""
    stages = ", ".join(f"{stage['percent']} %" for stage in plan["stages"])
    return f"{stages}; stage {plan['stage']} since {when(plan['stage_at'])}" + (
        f"; ended: {plan['end']}" if plan["end"] else ""
    )


def _rollout(build: dict[str, Any]) -> Text:
    if not build["is_current"]:
        return Text("")
    return Text("paused", "red") if build["paused_at"] else Text(f"{build['staged_rollout_percent']} %", "green")


def _installed(build: dict[str, Any]) -> Text:
    done, failed = build["statistics"]["completed"], build["statistics"]["failed"]
    return Text.assemble(f"{done}", (f", {failed} failed" if failed else "", "red"))


COLUMNS = [
    Column("ID", lambda b: str(b["build_id"])),
    Column("PACKAGE", lambda b: b["package_name"], flexible=True),
    Column("VERSION", lambda b: f"{b['version_name']} ({b['version_code']})"),
    Column("TYPE", lambda b: b["build_type"]),
    Column("STATE", lambda b: Text(b["state"], STYLES.get(b["state"], ""))),
    Column("ROLLOUT", _rollout),
    Column("INSTALLED", _installed),
    Column("DECLARED", lambda b: ago(b["uploaded_at"]), wide=True),
]


@command(app)
def publish(
    session: Session,
    file: File,
    package_name: Annotated[str | None, typer.Option(help="Overrides the manifest.")] = None,
    version_name: Annotated[str | None, typer.Option(help="Overrides the manifest.")] = None,
    version_code: Annotated[int | None, typer.Option(min=1, help="Overrides the manifest.")] = None,
    build_type: Annotated[str | None, typer.Option(help="release or debug; overrides the manifest's flag.")] = None,
    signer_fingerprint: Annotated[
        str | None, typer.Option(help="SHA-256 of the signer's certificate; give it to avoid trusting the file.")
    ] = None,
    ci_run_id: Annotated[str | None, typer.Option(envvar="GITHUB_RUN_ID", help="The CI run that built it.")] = None,
    git_sha: Annotated[str | None, typer.Option(envvar="GITHUB_SHA", help="The commit that it was built from.")] = None,
    notes: Annotated[str | None, typer.Option(help="Release notes; sent to devices.")] = None,
    wifi_only: Annotated[
        bool, typer.Option("--wifi-only/--any-network", help="Over which networks devices may download it.")
    ] = True,
    must_install: Annotated[
        bool, typer.Option("--must-install", help="Mark the build as mandatory for devices.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Accept a version code that no build can follow.")] = False,
) -> None:
    """Publish an APK: declare it, upload it, have it verified. Every step may be repeated.

    Values that are not given are read from the file (with pyaxmlparser, the extra `apk`); the API verifies them in any
    case.

    \b
    nexmdm builds publish agent.apk
    nexmdm builds publish agent.apk --signer-fingerprint "$FINGERPRINT" --notes "Fixes the clock" --json
    """
    described = apk.describe(file, Described(package_name, version_name, version_code, build_type, signer_fingerprint))
    declaration = {
        **vars(described),
        "file_size": file.stat().st_size,
        "sha256": transfers.sha256_of(file),
        "ci_run_id": ci_run_id,
        "git_sha": git_sha,
        "notes": notes,
        "wifi_only": wifi_only,
        "must_install": must_install,
        "force": force or None,
    }
    api = session.api
    build = api.call("POST", "/v1/apk/builds", {name: v for name, v in declaration.items() if v is not None})
    if build["state"] == "declared":
        transfers.upload(session.out, file, build["upload_url"], build["upload_headers"])
    with session.out.progress("verifying size, checksum, signature and manifest"):
        build = api.call("POST", path("apk", "builds", build["build_id"], "complete"))
    _print(session, build)
    if build["state"] == "awaiting_signer":
        session.out.note(
            f"{build['package_name']} has no pinned signer yet. `nexmdm builds promote {build['build_id']}` pins this"
            " build's signer and publishes the build; `nexmdm builds signers` pins another signer."
        )


@command(app, "list")
def list_builds(
    session: Session,
    package_name: Annotated[str | None, typer.Option(help="Only builds of this package.")] = None,
    build_type: Annotated[str | None, typer.Option(help="Only release or debug.")] = None,
    state: Annotated[
        str | None, typer.Option(help="declared, awaiting_signer, published, refused, withdrawn or adopted.")
    ] = None,
    current: Annotated[
        bool | None, typer.Option("--current/--not-current", help="Only current builds, or only others.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number.")] = 50,
) -> None:
    """List builds, newest first."""
    query = {"package_name": package_name, "build_type": build_type, "state": state, "current": current}
    session.out.table(session.api.pages("/v1/apk/builds", query, limit), COLUMNS, "No build matches.")


@command(app)
def show(session: Session, build_id: Build) -> None:
    """Show a build with its rollout and its audit."""
    _print(session, session.api.call("GET", path("apk", "builds", build_id)))


@command(app)
def stats(
    session: Session,
    build_id: Build,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Repeat until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between updates.")] = 2,
) -> None:
    """Show the statistics of a build's installations."""
    with contextlib.suppress(KeyboardInterrupt):
        for look in itertools.count() if watch else range(1):
            if look:
                time.sleep(interval)
            statistics = session.api.call("GET", path("apk", "builds", build_id))["statistics"]
            counts = ", ".join(f"{count} {name}" for name, count in statistics.items())
            session.out.stream(statistics if session.out.as_json else counts)


@command(app)
def promote(
    session: Session,
    build_id: Build,
    percent: Annotated[int, typer.Option(min=0, max=100, help="Percentage of the devices to offer it to.")] = 100,
    selector: Selector = None,
    group: InGroup = None,
    alias_prefix: Prefix = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Make a published build the current one of its package; with a filter, only for the matching devices."""
    target = _audience(session, build_id, Narrow(selector, group, None, alias_prefix).body(), yes=yes, dry_run=dry_run)
    if target is not None:
        _print(session, _change(session, build_id, "promote", {"staged_rollout_percent": percent, **target}))


Stages = Annotated[
    list[str] | None,
    typer.Option(
        "--stage",
        help="A stage of an automatic rollout: percent, hours to hold, minimum percent completed.",
        metavar="P[:H[:C]]",
    ),
]


def _how(session: Session, percent: int | None, to: list[str], stages: list[str], window: str | None) -> dict[str, Any]:
    """The part of the body that selects the devices: a percentage, named devices, or stages."""
    if sum((percent is not None, bool(to), bool(stages))) != 1:
        raise Failure("No target was given.", Code.USAGE, "Give a percentage, --to or --stage.")
    if window and not stages:
        raise Failure("--window applies only to stages.", Code.USAGE, "Give --stage too.")
    if to:
        return {"device_ids": [addresses.find(session.api, alias)["device_id"] for alias in to]}
    if stages:
        return {"stages": [_stage(text) for text in stages]} | ({"window": _window(window)} if window else {})
    return {"staged_rollout_percent": percent}


def _follow(session: Session, build: dict[str, Any], timeout: float | None) -> None:
    """Print a build after a rollout; follow its install command, if there is one, for `timeout` seconds."""
    row: dict[str, Any] = build.get("install") or {}
    followed = timeout is not None and row.get("request_id")
    if timeout is not None and followed:
        row = build["install"] = following.follow(session.api, session.out, row, until_sent=False, timeout=timeout)
    _print(session, build)
    if row and not session.out.as_json:
        _say_who_is_not_asked(session, row)
    if followed:
        following.judge(row)


@command(app)
def rollout(
    session: Session,
    build_id: Build,
    percent: Annotated[
        int | None,
        typer.Argument(min=0, max=100, help="Percentage of the devices to offer it to.", metavar="[PERCENT]"),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            help="Ask this device to install it, in addition to the percentage; may be repeated.",
            metavar="ALIAS",
            autocompletion=addresses.complete,
        ),
    ] = None,
    stage: Stages = None,
    window: Annotated[
        str | None,
        typer.Option(help="When stages may begin, in local time.", metavar="'fri,sat 22:00-04:00 Europe/Berlin'"),
    ] = None,
    selector: Selector = None,
    group: InGroup = None,
    alias_prefix: Prefix = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every device; removes the rollout's filter.")] = False,
    install: Annotated[bool, typer.Option("--install", help="Also ask those devices to install it now.")] = False,
    request_id: Annotated[
        str | None, typer.Option(help="Choose the install command's request id.", metavar="ID")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the install command until it is sent.")] = True,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to follow it for.")] = 120,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Offer the current build to a percentage of the fleet, or of the devices that a filter selects.

    A filter stays until another one, or --all, is given. With stages the rollout advances by itself; pausing it makes
    it wait, and setting a percentage by hand ends the stages.

    \b
    nexmdm builds rollout 7 100 -l stage=pilot
    nexmdm builds rollout 7 10 --all --install
    nexmdm builds rollout 7 --to lobby --to kiosk-2
    nexmdm builds rollout 7 --stage 5:24 --stage 25:24:90 --stage 100 --install
    nexmdm builds stats 7 --watch
    """
    how = _how(session, percent, to or [], stage or [], window)
    filter_ = Filter(selector, group, None, alias_prefix, None, everyone).body()
    target = _audience(session, build_id, filter_, yes=yes, dry_run=dry_run)
    if target is None:
        return
    body = {"install": install or bool(to), **target, **how}
    key = None
    if body["install"] and not stage:
        key = request_id or f"install-{build_id}-{secrets.token_hex(6)}"
        body["request_id"] = key
    build = session.api.call("POST", path("apk", "builds", build_id, "rollout"), body, key=key)
    _follow(session, build, timeout if wait else None)


@command(app, "installations")
def list_installations(
    session: Session,
    build_id: Build,
    status: Annotated[
        str | None, typer.Option(help="pending, downloading, installing, completed, failed or unknown.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number.")] = 100,
) -> None:
    """List a build's installations, newest first, with their devices, statuses and errors.

    \b
    nexmdm builds installations 7 --status failed
    """
    rows = list(session.api.pages(path("apk", "builds", build_id, "installations"), {"status": status}, limit=limit))
    session.out.table(rows, INSTALLATIONS, "No installation matches.")


@command(app)
def pause(session: Session, build_id: Build, reason: Reason = "by hand") -> None:
    """Stop offering a build until it is resumed."""
    _print(session, _change(session, build_id, "pause", {"reason": reason}))


@command(app)
def resume(session: Session, build_id: Build) -> None:
    """Resume a paused rollout."""
    _print(session, _change(session, build_id, "resume"))


@command(app)
def rollback(session: Session, build_id: Build, reason: Reason = "by hand") -> None:
    """Make the build current again that this build replaced."""
    _print(session, _change(session, build_id, "rollback", {"reason": reason}))


@command(app)
def withdraw(session: Session, build_id: Build) -> None:
    """Withdraw a declared build that will not be published, so that its version can be declared again."""
    session.api.call("DELETE", path("apk", "builds", build_id))
    if session.out.as_json:
        return session.out.json({"build_id": build_id, "state": "withdrawn"})
    session.out.line(f"withdrew build {build_id}")


@command(app)
def download(
    session: Session,
    build_id: Build,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The output file; default PACKAGE-CODE-TYPE.apk in this folder.", metavar="FILE"
        ),
    ] = None,
    source: Annotated[str, typer.Option(help="manual or ci, for the record.")] = "manual",
) -> None:
    """Download a build's verified file; the download is recorded."""
    build = session.api.call("GET", path("apk", "builds", build_id))
    address = session.api.call("GET", path("apk", "builds", build_id, "download"), query={"source": source})
    file = output or Path(f"{build['package_name']}-{build['version_code']}-{build['build_type']}.apk")
    transfers.download(session.out, address["download_url"], file, address["file_size"], address["sha256"])
    if session.out.as_json:
        return session.out.json({"file": str(file), "sha256": address["sha256"], "file_size": address["file_size"]})
    session.out.line(f"{file}  {address['file_size']} bytes  SHA-256 {address['sha256']}")


@command(app)
def signers(
    session: Session,
    package_name: Annotated[str, typer.Argument(help="The package.", metavar="PACKAGE")],
    pin: Annotated[
        list[str] | None,
        typer.Option("--pin", help="Replace the certificates that may sign it (SHA-256)."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """List the signers of a package, or pin others."""
    route = path("apk", "packages", package_name, "signers")
    if pin:
        session.confirm(f"From now on allow only {', '.join(pin)} to sign {package_name}?", yes)
        found = session.api.call("PUT", route, {"fingerprints": pin})["items"]
    else:
        found = session.api.call("GET", route)["items"]
    columns = [
        Column("FINGERPRINT", lambda s: s["fingerprint"]),
        Column("PINNED", lambda s: ago(s["pinned_at"])),
        Column("BY", lambda s: s["pinned_by"] or "", wide=True),
    ]
    session.out.table(found, columns, f"{package_name} has no signer yet: its first release build pins its own.")


def _audience(
    session: Session, build_id: int, filter_: dict[str, Any], *, yes: bool, dry_run: bool
) -> dict[str, Any] | None:
    """The part of the body that selects the devices; None after a dry run, which shows all devices of the filter."""
    if dry_run:
        shown = filter_ or session.api.call("GET", path("apk", "builds", build_id))["rollout_filter"] or {"all": True}
        return selection.agreed(session, {"filter": shown}, "", yes=True, dry_run=True)
    if not filter_:
        return {}
    return selection.agreed(session, {"filter": filter_}, f"Offer build {build_id} to", yes=yes, dry_run=False)


def _change(session: Session, build_id: int, what: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    build: dict[str, Any] = session.api.call("POST", path("apk", "builds", build_id, what), body)
    return build


def _print(session: Session, build: dict[str, Any]) -> None:
    statistics = ", ".join(f"{count} {name}" for name, count in build["statistics"].items() if count)
    history = [
        f"{e['event']} {when(e.get('at'))} by {e.get('by')} {e.get('reason') or ''}".strip() for e in build["audit"]
    ]
    asked = build.get("install")
    session.out.fields(
        build,
        [
            ("build id", str(build["build_id"])),
            ("package", build["package_name"]),
            ("version", f"{build['version_name']} ({build['version_code']}), {build['build_type']}"),
            ("state", Text(build["state"], STYLES.get(build["state"], ""))),
            ("refusal", clean(build["refusal"] or "")),
            ("rollout", _rollout(build)),
            ("stages", _plan(build)),
            ("offered to", groups.described(build["rollout_filter"] or {})),
            ("paused", f"{build['paused_reason']} {when(build['paused_at'])}" if build["paused_at"] else ""),
            ("asked to install", following.said(asked) if asked and asked["request_id"] else ""),
            ("installations", statistics),
            ("size", f"{build['file_size']:,} bytes"),
            ("SHA-256", build["sha256"]),
            ("signer", build["signer_fingerprint"]),
            ("warnings", "\n".join(build.get("warnings", []))),
            ("source", " ".join(filter(None, (build["source"], build["ci_run_id"], build["git_sha"])))),
            ("notes", build["notes"] or ""),
            ("history", "\n".join(history)),
        ],
    )
