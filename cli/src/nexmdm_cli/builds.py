"""`nexmdm builds`: publish, roll out in stages, roll back, inspect and download builds."""

import contextlib
import itertools
import secrets
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from nexmdm_cli import addresses, apk, following, groups, resources, selection, transfers
from nexmdm_cli.api import Body, path
from nexmdm_cli.apk import Described
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.output import Column, ago, clean, when
from nexmdm_cli.resources import (
    Build,
    DeclaredBuild,
    DownloadAddress,
    FilterDocument,
    Installation,
    InstallCommands,
    InstallingBuild,
    Signer,
)
from nexmdm_cli.selection import DryRun, Filter, InGroup, Narrow, Prefix, Selector, Yes
from nexmdm_cli.session import Session, command

app = typer.Typer(no_args_is_help=True, help="Publish builds, roll them out or back, download them.")

BuildId = Annotated[int, typer.Argument(help="The build's id.", metavar="BUILD_ID")]
Reason = Annotated[str, typer.Option(help="The reason, which is recorded.")]
File = Annotated[Path, typer.Argument(help="The signed APK.", exists=True, dir_okay=False, metavar="FILE.apk")]
STYLES = {"published": "green", "refused": "red", "declared": "yellow", "awaiting_signer": "yellow"}


INSTALLATIONS: list[Column[Installation]] = [
    Column("DEVICE", lambda i: clean(i.alias), flexible=True),
    Column("STATUS", lambda i: Text(i.status, {"completed": "green", "failed": "red"}.get(i.status, ""))),
    Column("ASKED", lambda i: ago(i.initiated_at)),
    Column("ENDED", lambda i: ago(i.ended_at)),
    Column("ERROR", lambda i: clean(i.error or ""), flexible=True),
]


def _stage(text: str) -> Body:
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


def _window(text: str) -> Body:
    try:
        days, hours, timezone = text.split()
        begin, end = hours.split("-")
    except ValueError:
        hint = "Give days, hours and a time zone: 'fri,sat 22:00-04:00 Europe/Berlin'."
        raise Failure(f"{text!r} is not a window.", Code.USAGE, hint) from None
    return {"days": days.split(","), "from": begin, "to": end, "timezone": timezone}


def _say_who_is_not_asked(session: Session, asked: InstallCommands) -> None:
    """Explain why no or fewer devices are asked: the cohort may be empty, or have newer versions."""
    if not asked.cohort_devices:
        session.out.note("No device is asked: no device is within this percentage.")
    elif not asked.request_id:
        session.out.note(f"No device is asked: all {asked.cohort_devices} devices run the build or were already asked.")
    if asked.newer_devices:
        session.out.note(
            f"{asked.newer_devices} run a newer version and are not asked: Android would reject the build."
        )


def _plan(build: Build) -> str:
    plan = build.plan
    if plan is None:
        return ""
    stages = ", ".join(f"{stage.percent} %" for stage in plan.stages)
    return f"{stages}; stage {plan.stage} since {when(plan.stage_at)}" + (f"; ended: {plan.end}" if plan.end else "")


def _rollout(build: Build) -> Text:
    if not build.is_current:
        return Text("")
    return Text("paused", "red") if build.paused_at else Text(f"{build.staged_rollout_percent} %", "green")


def _installed(build: Build) -> Text:
    done, failed = build.statistics.completed, build.statistics.failed
    return Text.assemble(f"{done}", (f", {failed} failed" if failed else "", "red"))


COLUMNS: list[Column[Build]] = [
    Column("ID", lambda b: str(b.build_id)),
    Column("PACKAGE", lambda b: b.package_name, flexible=True),
    Column("VERSION", lambda b: f"{b.version_name} ({b.version_code})"),
    Column("TYPE", lambda b: b.build_type or ""),
    Column("STATE", lambda b: Text(b.state, STYLES.get(b.state, ""))),
    Column("ROLLOUT", _rollout),
    Column("INSTALLED", _installed),
    Column("DECLARED", lambda b: ago(b.uploaded_at), wide=True),
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
    given = {name: value for name, value in declaration.items() if value is not None}
    declared = api.read(DeclaredBuild, "POST", "/v1/apk/builds", given)
    if declared.state == "declared" and declared.upload_url:
        transfers.upload(session.out, file, declared.upload_url, declared.upload_headers or {})
    with session.out.progress("verifying size, checksum, signature and manifest"):
        build = api.read(Build, "POST", path("apk", "builds", declared.build_id, "complete"))
    _print(session, build)
    if build.state == "awaiting_signer":
        session.out.note(
            f"{build.package_name} has no pinned signer yet. `nexmdm builds promote {build.build_id}` pins this"
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
    session.out.table(session.api.pages(Build, "/v1/apk/builds", query, limit), COLUMNS, "No build matches.")


@command(app)
def show(session: Session, build_id: BuildId) -> None:
    """Show a build with its rollout and its audit."""
    _print(session, _find(session, build_id))


@command(app)
def stats(
    session: Session,
    build_id: BuildId,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Repeat until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, max=86_400, help="Seconds between updates.")] = 2,
) -> None:
    """Show the statistics of a build's installations."""
    with contextlib.suppress(KeyboardInterrupt):
        for look in itertools.count() if watch else range(1):
            if look:
                time.sleep(interval)
            statistics = _find(session, build_id).document["statistics"]
            counts = ", ".join(f"{count} {name}" for name, count in statistics.items())
            session.out.stream(statistics if session.out.as_json else counts)


@command(app)
def promote(
    session: Session,
    build_id: BuildId,
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


def _how(session: Session, percent: int | None, to: list[str], stages: list[str], window: str | None) -> Body:
    """The part of the body that selects the devices: a percentage, named devices, or stages."""
    if sum((percent is not None, bool(to), bool(stages))) != 1:
        raise Failure("No target was given.", Code.USAGE, "Give a percentage, --to or --stage.")
    if window and not stages:
        raise Failure("--window applies only to stages.", Code.USAGE, "Give --stage too.")
    if to:
        return {"device_ids": [addresses.find(session.api, alias).device_id for alias in to]}
    if stages:
        return {"stages": [_stage(text) for text in stages]} | ({"window": _window(window)} if window else {})
    return {"staged_rollout_percent": percent}


def _follow(session: Session, build: InstallingBuild, timeout: float | None) -> None:
    """Print a build after a rollout; follow its install command, if there is one, for `timeout` seconds."""
    asked, sent = build.install, None
    if timeout is not None and asked and asked.request_id:
        sent = resources.command(build.document["install"])
        sent = following.follow(session.api, session.out, sent, until_sent=False, timeout=timeout)
        build.document["install"] = sent.document
    _print(session, build, sent)
    if asked and not session.out.as_json:
        _say_who_is_not_asked(session, asked)
    if sent:
        following.judge(sent)


@command(app)
def rollout(
    session: Session,
    build_id: BuildId,
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
    build = session.api.read(InstallingBuild, "POST", path("apk", "builds", build_id, "rollout"), body, key=key)
    _follow(session, build, timeout if wait else None)


@command(app, "installations")
def list_installations(
    session: Session,
    build_id: BuildId,
    status: Annotated[
        str | None, typer.Option(help="pending, downloading, installing, completed, failed or unknown.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number.")] = 100,
) -> None:
    """List a build's installations, newest first, with their devices, statuses and errors.

    \b
    nexmdm builds installations 7 --status failed
    """
    route = path("apk", "builds", build_id, "installations")
    session.out.table(
        session.api.pages(Installation, route, {"status": status}, limit), INSTALLATIONS, "No installation matches."
    )


@command(app)
def pause(session: Session, build_id: BuildId, reason: Reason = "by hand") -> None:
    """Stop offering a build until it is resumed."""
    _print(session, _change(session, build_id, "pause", {"reason": reason}))


@command(app)
def resume(session: Session, build_id: BuildId) -> None:
    """Resume a paused rollout."""
    _print(session, _change(session, build_id, "resume"))


@command(app)
def rollback(session: Session, build_id: BuildId, reason: Reason = "by hand") -> None:
    """Make the build current again that this build replaced."""
    _print(session, _change(session, build_id, "rollback", {"reason": reason}))


@command(app)
def withdraw(session: Session, build_id: BuildId) -> None:
    """Withdraw a declared build that will not be published, so that its version can be declared again."""
    session.api.call("DELETE", path("apk", "builds", build_id))
    if session.out.as_json:
        return session.out.json({"build_id": build_id, "state": "withdrawn"})
    session.out.line(f"withdrew build {build_id}")


@command(app)
def download(
    session: Session,
    build_id: BuildId,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The output file; default PACKAGE-CODE-TYPE.apk in this folder.", metavar="FILE"
        ),
    ] = None,
    source: Annotated[str, typer.Option(help="manual or ci, for the record.")] = "manual",
) -> None:
    """Download a build's verified file; the download is recorded."""
    build = _find(session, build_id)
    route = path("apk", "builds", build_id, "download")
    address = session.api.read(DownloadAddress, "GET", route, query={"source": source})
    file = output or Path(f"{build.package_name}-{build.version_code}-{build.build_type}.apk")
    transfers.download(session.out, address.download_url, file, address.file_size, address.sha256)
    if session.out.as_json:
        return session.out.json({"file": str(file), "sha256": address.sha256, "file_size": address.file_size})
    session.out.line(f"{file}  {address.file_size} bytes  SHA-256 {address.sha256}")


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
        found = session.api.items(Signer, "PUT", route, {"fingerprints": pin})
    else:
        found = session.api.items(Signer, "GET", route)
    columns: list[Column[Signer]] = [
        Column("FINGERPRINT", lambda s: s.fingerprint),
        Column("PINNED", lambda s: ago(s.pinned_at)),
        Column("BY", lambda s: s.pinned_by or "", wide=True),
    ]
    session.out.table(found, columns, f"{package_name} has no signer yet: its first release build pins its own.")


def _audience(session: Session, build_id: int, filter_: FilterDocument, *, yes: bool, dry_run: bool) -> Body | None:
    """The part of the body that selects the devices; None after a dry run, which shows all devices of the filter."""
    if dry_run:
        shown = filter_ or _find(session, build_id).rollout_filter or {"all": True}
        return selection.agreed(session, {"filter": shown}, "", yes=True, dry_run=True)
    if not filter_:
        return {}
    return selection.agreed(session, {"filter": filter_}, f"Offer build {build_id} to", yes=yes, dry_run=False)


def _find(session: Session, build_id: int) -> Build:
    return session.api.read(Build, "GET", path("apk", "builds", build_id))


def _change(session: Session, build_id: int, what: str, body: Body | None = None) -> Build:
    return session.api.read(Build, "POST", path("apk", "builds", build_id, what), body)


def _print(session: Session, build: Build, sent: following.Sent | None = None) -> None:
    """sent: the install command that was followed."""
    counts: dict[str, int] = build.document["statistics"]
    statistics = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    history = [f"{entry.event} {when(entry.at)} by {entry.by} {entry.reason or ''}".strip() for entry in build.audit]
    asked = build.install if isinstance(build, InstallingBuild) else None
    said = following.counted(asked) if asked and asked.request_id else ""
    session.out.fields(
        build,
        [
            ("build id", str(build.build_id)),
            ("package", build.package_name),
            ("version", f"{build.version_name} ({build.version_code}), {build.build_type}"),
            ("state", Text(build.state, STYLES.get(build.state, ""))),
            ("refusal", clean(build.refusal or "")),
            ("rollout", _rollout(build)),
            ("stages", _plan(build)),
            ("offered to", groups.described(build.rollout_filter or {})),
            ("paused", f"{build.paused_reason} {when(build.paused_at)}" if build.paused_at else ""),
            ("asked to install", following.said(sent) if sent else said),
            ("installations", statistics),
            ("size", f"{build.file_size:,} bytes"),
            ("SHA-256", build.sha256 or ""),
            ("signer", build.signer_fingerprint or ""),
            ("warnings", "\n".join(build.warnings)),
            ("source", " ".join(filter(None, (build.source, build.ci_run_id, build.git_sha)))),
            ("notes", build.notes or ""),
            ("history", "\n".join(history)),
        ],
    )
