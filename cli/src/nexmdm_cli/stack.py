"""Which stack a command speaks to, and who signs: the AWS credentials that the person already has."""

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import typer

from nexmdm_cli import local_stack
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.local_stack import LocalStack
from nexmdm_cli.signing import Signed, UnusableCredentials, as_pasted

EXECUTE_API = re.compile(r"\.execute-api\.([a-z0-9-]+)\.amazonaws\.com")


@dataclass(frozen=True)
class Choice:
    """What a person said about the stack; None is not said."""

    url: str | None = None
    profile: str | None = None
    region: str | None = None
    local: bool = False


@dataclass(frozen=True)
class Stack:
    url: str
    auth: httpx.Auth
    profile: str | None = None


def saved_file() -> Path:
    return Path(typer.get_app_dir("nexmdm")) / "stack.json"


def save(choice: Choice) -> None:
    """What `nexmdm use` remembers; it holds no secret."""
    saved_file().parent.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in asdict(choice).items() if value and name != "local"}
    saved_file().write_text(json.dumps(kept, indent=2) + "\n")


def saved() -> Choice:
    file = saved_file()
    if not file.is_file():
        return Choice()
    try:
        return Choice(**json.loads(file.read_bytes()))
    except (ValueError, TypeError):
        raise Failure(f"{file} is not what `nexmdm use` writes.", Code.USAGE, "Run `nexmdm use --forget`.") from None


def find(choice: Choice) -> Stack:
    """--local, --url, NEXMDM_URL, what `nexmdm use` saved, a running `make run`: the first of them.

    Raises:
        Failure: none of them is there, or nobody can sign.
    """
    local = local_stack.running()
    if choice.local:
        if local is None:
            raise Failure("No local stack runs.", Code.UNAVAILABLE, "Start one with `make run`.")
        return _local(local)
    kept = saved() if choice.url is None else Choice()
    url = choice.url or kept.url or (local.url if local else None)
    if url is None:
        raise Failure(
            "Which stack? No address was given and no local one runs.",
            Code.USAGE,
            "Give --url, set NEXMDM_URL, run `nexmdm use https://…` once, or start `make run`.",
        )
    url = checked(url)
    profile = choice.profile or kept.profile
    if local and local.url == url and profile is None:
        return _local(local)
    session = _session(profile)
    return Stack(
        url, Signed(_credentials(session, profile), _region(choice.region or kept.region, url, session)), profile
    )


def checked(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        Failure: it is none.
    """
    with contextlib.suppress(httpx.InvalidURL):
        parsed = httpx.URL(url)
        if parsed.scheme in ("http", "https") and parsed.host:
            return url.rstrip("/")
    raise Failure(f"{url!r} is no address of a stack.", Code.USAGE, "It begins with https:// and names a host.")


def _local(stack: LocalStack) -> Stack:
    if stack.access_key_id is None or stack.secret_access_key is None:
        return Stack(stack.url, Signed(_credentials(_session(None), None), stack.region))
    from botocore.credentials import Credentials

    return Stack(stack.url, Signed(Credentials(stack.access_key_id, stack.secret_access_key), stack.region))


def _session(profile: str | None) -> Any:
    # botocore takes a quarter of a second to load: only when its own search for credentials is needed.
    from botocore.session import Session

    return Session(profile=profile)


def _credentials(session: Any, profile: str | None) -> Any:
    from botocore.exceptions import BotoCoreError

    try:
        found = session.get_credentials()
        if found is not None:
            as_pasted(found)
            return found
    except BotoCoreError as error:
        raise unusable(error, profile) from None
    except UnusableCredentials as error:
        raise Failure(f"{error}.", Code.NOT_ALLOWED, "Set it again, without what was pasted along.") from None
    raise Failure(
        "No AWS credentials were found.",
        Code.NOT_ALLOWED,
        "Give --profile or set AWS_PROFILE (`aws configure sso` makes one), or set AWS_ACCESS_KEY_ID and"
        " AWS_SECRET_ACCESS_KEY.",
    )


def unusable(error: Exception, profile: str | None) -> Failure:
    """Why botocore has no credentials, and the command that mends it."""
    from botocore.exceptions import ProfileNotFound

    if isinstance(error, ProfileNotFound):
        return Failure(f"{error}.", Code.NOT_ALLOWED, "`aws configure list-profiles` prints those there are.")
    text = " ".join(str(error).split())
    option = f" --profile {profile or os.environ['AWS_PROFILE']}" if profile or os.environ.get("AWS_PROFILE") else ""
    sso = "SSO" in type(error).__name__ or "sso" in text.lower() or "token" in text.lower()
    login = f"Run `aws sso login{option}`." if sso else "Check the profile in ~/.aws/config."
    return Failure(f"The AWS credentials cannot be used: {text}", Code.NOT_ALLOWED, login)


def _region(given: str | None, url: str, session: Any) -> str:
    of_api = EXECUTE_API.search(httpx.URL(url).host)
    # botocore itself reads AWS_DEFAULT_REGION and the profile only.
    ambient = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    region = given or (of_api and of_api[1]) or ambient
    if region is None:
        raise Failure(f"In which region is {url}?", Code.USAGE, "Give --region or set AWS_REGION.")
    return region
