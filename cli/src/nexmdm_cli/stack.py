"""The stack that a command uses, and the AWS credentials that requests are signed with."""

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
    """The user's options for the stack; None means not given."""

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
    """Save the choice for `nexmdm use`; it contains no secret."""
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
        raise Failure(
            f"{file} was not written by `nexmdm use`, or is damaged.", Code.USAGE, "Run `nexmdm use --forget`."
        ) from None


def find(choice: Choice) -> Stack:
    """The first of: --local, --url, NEXMDM_URL, the stack saved by `nexmdm use`, a running `make run`.

    Raises:
        Failure: none is available, or there are no credentials.
    """
    local = local_stack.running()
    if choice.local:
        if local is None:
            raise Failure("No local stack is running.", Code.UNAVAILABLE, "Start one with `make run`.")
        return _local(local)
    kept = saved() if choice.url is None else Choice()
    url = choice.url or kept.url or (local.url if local else None)
    if url is None:
        raise Failure(
            "No stack was given, and no local stack is running.",
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
    """The URL without a trailing slash.

    Raises:
        Failure: it is not a valid URL.
    """
    with contextlib.suppress(httpx.InvalidURL):
        parsed = httpx.URL(url)
        if parsed.scheme in ("http", "https") and parsed.host:
            return url.rstrip("/")
    raise Failure(f"{url!r} is not the URL of a stack.", Code.USAGE, "It must begin with https:// and name a host.")


def _local(stack: LocalStack) -> Stack:
    if stack.access_key_id is None or stack.secret_access_key is None:
        return Stack(stack.url, Signed(_credentials(_session(None), None), stack.region))
    from botocore.credentials import Credentials

    return Stack(stack.url, Signed(Credentials(stack.access_key_id, stack.secret_access_key), stack.region))


def _session(profile: str | None) -> Any:
    # botocore takes a quarter of a second to load, so it is imported only when its search for credentials is needed.
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
        raise Failure(f"{error}.", Code.NOT_ALLOWED, "Set it again without additional characters.") from None
    raise Failure(
        "No AWS credentials were found.",
        Code.NOT_ALLOWED,
        "Give --profile or set AWS_PROFILE (`aws configure sso` makes one), or set AWS_ACCESS_KEY_ID and"
        " AWS_SECRET_ACCESS_KEY.",
    )


def unusable(error: Exception, profile: str | None) -> Failure:
    """The reason why botocore has no credentials, and the command that fixes it."""
    from botocore.exceptions import ProfileNotFound

    if isinstance(error, ProfileNotFound):
        return Failure(f"{error}.", Code.NOT_ALLOWED, "`aws configure list-profiles` lists the profiles.")
    text = " ".join(str(error).split())
    option = f" --profile {profile or os.environ['AWS_PROFILE']}" if profile or os.environ.get("AWS_PROFILE") else ""
    sso = "SSO" in type(error).__name__ or "sso" in text.lower() or "token" in text.lower()
    login = f"Run `aws sso login{option}`." if sso else "Check the profile in ~/.aws/config."
    return Failure(f"The AWS credentials cannot be used: {text}", Code.NOT_ALLOWED, login)


def _region(given: str | None, url: str, session: Any) -> str:
    of_api = EXECUTE_API.search(httpx.URL(url).host)
    # botocore itself reads only AWS_DEFAULT_REGION and the profile.
    ambient = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    region = given or (of_api and of_api[1]) or ambient
    if region is None:
        raise Failure(f"The region of {url} is not known.", Code.USAGE, "Give --region or set AWS_REGION.")
    return region
