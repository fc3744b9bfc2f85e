"""The reason of a failed migration for CloudFormation's `Reason`, which is often the only text that people read.

Only texts that cannot contain a secret are quoted: our own, libpq's and the server's primary message. The text of
another error may quote the invalid value, so only its type is given.
"""

import re
from traceback import extract_tb

import psycopg2
from nexmdm.runtime import secrets, settings
from nexmdm.runtime.errors import Problem
from psycopg2.extensions import parse_dsn
from sqlalchemy.exc import DBAPIError

# CloudFormation accepts 4,096 bytes for the whole response.
LONGEST = 1_000
_MINE = re.compile(r"/(migrations|functions|nexmdm)/")
# Messages in these SQLSTATE classes, data exceptions and constraint violations, quote the rejected value.
_QUOTING_CLASSES = {"22", "23"}


def of(error: BaseException) -> str:
    """One line: the revision that failed, then each different error from the outermost to its cause."""
    told: list[str] = []
    revision = None
    for each in _chain(error):
        revision = _revision(each) or revision
        text = _text(each)
        if text and text not in told:
            told.append(text)
    where = f"revision {revision}: " if revision else ""
    return " ".join((where + "; ".join(told)).split())[:LONGEST]


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in chain:
        chain.append(each)
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return chain


def _text(error: BaseException) -> str:
    if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg2.Error):
        return _text(error.orig)
    if isinstance(error, psycopg2.Error):
        return _database_text(error)
    kind = type(error).__name__
    if isinstance(error, Problem):
        return f"{kind}: {error.detail}"
    if isinstance(error, settings.SettingsError | SystemExit | secrets.Unreachable):
        return f"{kind}: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{kind}: {error.strerror}"
    # urllib wraps the socket's error.
    inner = getattr(error, "reason", None)
    if isinstance(inner, OSError):
        return f"{kind}: {_text(inner)}"
    return f"{kind}: {error}" if isinstance(error, RuntimeError) and _raised_by_us(error) else kind


def _database_text(error: psycopg2.Error) -> str:
    kind = type(error).__name__
    if error.pgcode is None:
        # libpq's own message. It quotes a DSN that it cannot parse, including the password.
        text = str(error).strip()
        if not isinstance(error, psycopg2.OperationalError) or "://" in text:
            return kind
        # With a wait callback, psycopg2 drops the part of libpq's message that names the server.
        server = _server()
        return f"{kind}: {text}" if server.partition(":")[0] in text else f"{kind}: {server}: {text}"
    message = error.diag.message_primary or ""
    if error.pgcode[:2] in _QUOTING_CLASSES:
        message = re.sub(r'"[^"]*"', '"..."', message)
    return f"{kind} ({error.pgcode}): {message}"


def _server() -> str:
    try:
        config = settings.load()
        if not config.database_url:
            return f"{config.database_host}:{config.database_port}"
        asked = parse_dsn(config.dsn)
    except (settings.SettingsError, psycopg2.Error):
        return "the database"
    return f"{asked.get('host', 'localhost')}:{asked.get('port', 5432)}"


def _revision(error: BaseException) -> str | None:
    files = [frame.filename for frame in extract_tb(error.__traceback__) if "/migrations/versions/" in frame.filename]
    return files[-1].rpartition("/")[2].removesuffix(".py") if files else None


def _raised_by_us(error: BaseException) -> bool:
    frames = extract_tb(error.__traceback__)
    return bool(frames) and bool(_MINE.search(frames[-1].filename)) and "site-packages" not in frames[-1].filename
