"""`nexmdm builds`: publish, roll out in stages, roll back, look at, fetch."""

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

app = typer.Typer(no_args_is_help=True, help="Publish builds, roll them out and back, fetch them.")

BuildId = Annotated[int, typer.Argument(help="The build's id.", metavar="BUILD_ID")]
Reason = Annotated[str, typer.Option(help="Why; it is kept with who and when.")]
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
    """`5:24:90` is 5 percent, for 24 hours at least, and until 90 percent of those who were asked have it."""
    names = ("percent", "hold_hours", "min_completed_percent")
    parts = text.split(":")
    try:
        values = [int(parts[0]), *map(float, parts[1:2]), *map(int, parts[2:])]
        return dict(zip(names[: len(values)], values, strict=True))
    except ValueError:
        raise Failure(
            f"{text!r} is no stage.", Code.USAGE, "Give percent:hours, such as 5:24; the last is 100."
        ) from None


def _window(text: str) -> Body:
    try:
        days, hours, timezone = text.split()
        begin, end = hours.split("-")
    except ValueError:
        hint = "Give days, hours and a time zone: 'fri,sat 22:00-04:00 Europe/Berlin'."
        raise Failure(f"{text!r} is no window.", Code.USAGE, hint) from None
    return {"days": days.split(","), "from": begin, "to": end, "timezone": timezone}


def _say_who_is_not_asked(session: Session, asked: InstallCommands) -> None:
    """A percentage of few devices may be nobody, and Android installs nothing over a newer version."""
    if not asked.cohort_devices:
        session.out.note("Nobody is asked: no device is within this percentage.")
    elif not asked.request_id:
        session.out.note(f"Nobody is asked: all {asked.cohort_devices} devices run the build or were asked already.")
    if asked.newer_devices:
        session.out.note(f"{asked.newer_devices} run a newer version and are not asked: Android would refuse.")


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
    package_name: Annotated[str | None, typer.Option(help="Instead of what the manifest says.")] = None,
    version_name: Annotated[str | None, typer.Option(help="Instead of what the manifest says.")] = None,
    version_code: Annotated[int | None, typer.Option(min=1, help="Instead of what the manifest says.")] = None,
    build_type: Annotated[str | None, typer.Option(help="release or debug, instead of the manifest's flag.")] = None,
    signer_fingerprint: Annotated[
        str | None, typer.Option(help="SHA-256 of the signer's certificate; pin it here rather than believe the file.")
    ] = None,
    ci_run_id: Annotated[str | None, typer.Option(envvar="GITHUB_RUN_ID", help="The run that built it.")] = None,
    git_sha: Annotated[str | None, typer.Option(envvar="GITHUB_SHA", help="The commit that it was built from.")] = None,
    notes: Annotated[str | None, typer.Option(help="What is new; devices are told.")] = None,
    wifi_only: Annotated[bool, typer.Option("--wifi-only/--any-network", help="How devices may fetch it.")] = True,
    must_install: Annotated[bool, typer.Option("--must-install", help="Devices are told that they must.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Take a version code that no build can follow.")] = False,
) -> None:
    """Publish an APK: declare what it is, upload it, have it verified. Every step may be repeated.

    What is not given is read from the file (pyaxmlparser, the extra `apk`); the API verifies it either way.

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
            " one and publishes the build; `nexmdm builds signers` pins another."
        )


@command(app, "list")
def list_builds(
    session: Session,
    package_name: Annotated[str | None, typer.Option(help="Only of this package.")] = None,
    build_type: Annotated[str | None, typer.Option(help="Only release or debug.")] = None,
    state: Annotated[
        str | None, typer.Option(help="declared, awaiting_signer, published, refused, withdrawn or adopted.")
    ] = None,
    current: Annotated[bool | None, typer.Option("--current/--not-current", help="Only what is rolled out.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
) -> None:
    """List builds, newest first."""
    query = {"package_name": package_name, "build_type": build_type, "state": state, "current": current}
    session.out.table(session.api.pages(Build, "/v1/apk/builds", query, limit), COLUMNS, "No build fits.")


@command(app)
def show(session: Session, build_id: BuildId) -> None:
    """Show a build: what it is, how its rollout goes, who did what."""
    _print(session, _find(session, build_id))


@command(app)
def stats(
    session: Session,
    build_id: BuildId,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2,
) -> None:
    """Show how installations of a build go."""
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
    percent: Annotated[int, typer.Option(min=0, max=100, help="Of the devices to offer it to.")] = 100,
    selector: Selector = None,
    group: InGroup = None,
    alias_prefix: Prefix = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Make a published build current of its package; with a filter for these devices only."""
    target = _audience(session, build_id, Narrow(selector, group, None, alias_prefix).body(), yes=yes, dry_run=dry_run)
    if target is not None:
        _print(session, _change(session, build_id, "promote", {"staged_rollout_percent": percent, **target}))


Stages = Annotated[
    list[str] | None,
    typer.Option(
        "--stage",
        help="A stage of a rollout that goes on by itself: percent, hours it holds, least percent completed.",
        metavar="P[:H[:C]]",
    ),
]


def _how(session: Session, percent: int | None, to: list[str], stages: list[str], window: str | None) -> Body:
    """The part of the body that says to how many, to whom, or in which stages."""
    if sum((percent is not None, bool(to), bool(stages))) != 1:
        raise Failure("Say to whom.", Code.USAGE, "Give a percentage, or --to, or --stage.")
    if window and not stages:
        raise Failure("A window is for stages.", Code.USAGE, "Give --stage too.")
    if to:
        return {"device_ids": [addresses.find(session.api, alias).device_id for alias in to]}
    if stages:
        return {"stages": [_stage(text) for text in stages]} | ({"window": _window(window)} if window else {})
    return {"staged_rollout_percent": percent}


def _follow(session: Session, build: InstallingBuild, timeout: float | None) -> None:
    """Print a build that was rolled out; follow the install command, if it has one, for `timeout` seconds."""
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
        int | None, typer.Argument(min=0, max=100, help="Of the devices to offer it to.", metavar="[PERCENT]")
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            help="Ask this device to install it, beside the percentage; once or more.",
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
    everyone: Annotated[bool, typer.Option("--all", help="Every device: takes the rollout's filter away.")] = False,
    install: Annotated[bool, typer.Option("--install", help="And tell those devices to install it now.")] = False,
    request_id: Annotated[str | None, typer.Option(help="Name the install command yourself.", metavar="ID")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the install command until it is sent.")] = True,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to follow it for.")] = 120,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Offer the current build to a percentage of the fleet, or of the devices that a filter selects.

    A filter stays until another one, or --all, is given. With stages the rollout goes on by itself; pausing makes it
    wait, a percentage given by hand ends it.

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
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
) -> None:
    """List a build's installations, newest first: which device, how it stands, and what went wrong.

    \b
    nexmdm builds installations 7 --status failed
    """
    route = path("apk", "builds", build_id, "installations")
    session.out.table(
        session.api.pages(Installation, route, {"status": status}, limit), INSTALLATIONS, "No installation fits."
    )


@command(app)
def pause(session: Session, build_id: BuildId, reason: Reason = "by hand") -> None:
    """Offer a build to nobody until it is resumed."""
    _print(session, _change(session, build_id, "pause", {"reason": reason}))


@command(app)
def resume(session: Session, build_id: BuildId) -> None:
    """Go on with a paused rollout."""
    _print(session, _change(session, build_id, "resume"))


@command(app)
def rollback(session: Session, build_id: BuildId, reason: Reason = "by hand") -> None:
    """Make current again what this build replaced."""
    _print(session, _change(session, build_id, "rollback", {"reason": reason}))


@command(app)
def withdraw(session: Session, build_id: BuildId) -> None:
    """Give back the name of a build that was declared and will not be published."""
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
        typer.Option("--output", "-o", help="Where to; default PACKAGE-CODE-TYPE.apk here.", metavar="FILE"),
    ] = None,
    source: Annotated[str, typer.Option(help="manual or ci, for the record.")] = "manual",
) -> None:
    """Fetch a build's verified bytes; the download is on record."""
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
        typer.Option("--pin", help="Make these, and only these, the certificates that may sign it (SHA-256)."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """List who may sign a package, or pin others."""
    route = path("apk", "packages", package_name, "signers")
    if pin:
        session.confirm(f"Only {', '.join(pin)} may sign {package_name} from now on?", yes)
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
    """What of the body says to whom; None after a dry run, which shows the devices, whatever the percentage."""
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
