"""Secrets from the setting itself, from a file, or from Secrets Manager by ARN.

White space, a byte order mark and quotes around a secret are removed; a service account may be base64. An unreadable
secret raises a `SettingsError` that names the setting and the format that was found, never the value.
"""

import json
import re
from functools import lru_cache
from typing import Any

from nexmdm.runtime import endpoints, settings, sigv4
from nexmdm.runtime.errors import Unavailable
from nexmdm.runtime.settings import Settings, SettingsError, as_pasted

_SILENT = "Secrets Manager is not available. Try again."
_ARN = re.compile(r"arn:[\w-]+:secretsmanager:[a-z0-9-]+:\d*:secret:[\w/+=.@-]+")
_PATH = re.compile(r"(~|\.{0,2})/[^\r\n]*|[^\r\n{]*\.json")
_LONGEST_PATH = 1024
_ACCOUNT_FIELDS = ("type", "project_id", "private_key", "client_email", "token_uri")
_ACCOUNT_SHOULD = "the service account's JSON, base64 of it, a path of a file with either, or a secret's ARN"
_DEEPEST = 4  # levels of nesting: JSON in a JSON string, base64 of that, ...


def hmac_key(config: Settings) -> str | None:
    """The key for signing messages, or None when messages are not signed.

    Raises:
        SettingsError: COMMAND_HMAC_KEY has a value that a phone cannot use as its key.
        Unavailable: Secrets Manager does not respond.
    """
    if not config.command_hmac_key:
        return None
    key = _only_value(resolve("COMMAND_HMAC_KEY", config.command_hmac_key))
    if not key.isprintable() or not key:
        raise _wrong("COMMAND_HMAC_KEY", _form(key), "the key that devices hold, one line, or a secret's ARN")
    return key


def webhook_url(config: Settings) -> str:
    """The URL that alerts are posted to.

    Raises:
        SettingsError: WEBHOOK_URL is not set, or is not a URL.
        Unavailable: Secrets Manager does not respond.
    """
    should = "https://host/.. or a secret's ARN"
    if not config.webhook_url:
        raise SettingsError(f"WEBHOOK_URL is not set: it should hold {should}")
    url = _only_value(resolve("WEBHOOK_URL", config.webhook_url))
    # The parser's own errors would quote the host.
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?(/[!-~]*)?", url):
        raise _wrong("WEBHOOK_URL", _form(url), should)
    return url


def administrator(config: Settings) -> tuple[str, str]:
    """(user, password) of the database's administrator, from the secret that RDS maintains.

    Raises:
        SettingsError: DATABASE_ADMIN_SECRET is not set or names a different kind of secret.
        Unavailable: Secrets Manager does not respond.
    """
    name, should = "DATABASE_ADMIN_SECRET", 'the ARN of a secret like {"username": .., "password": ..}'
    if not config.database_admin_secret:
        raise SettingsError(f"{name} is not set: it should hold {should}")
    text = fetch(name, config.database_admin_secret)
    document = _parsed(text)
    if not isinstance(document, dict):
        raise _wrong(name, _form(text), should)
    user, password = document.get("username"), document.get("password")
    if not isinstance(user, str) or not isinstance(password, str):
        raise _wrong(name, "a JSON object without username and password", should)
    return user, password


def service_account(config: Settings) -> dict[str, object]:
    """Firebase's service account.

    Raises:
        SettingsError: FCM_SERVICE_ACCOUNT is not set, or is not a service account.
        Unavailable: Secrets Manager does not respond.
    """
    name = "FCM_SERVICE_ACCOUNT"
    if not config.fcm_service_account:
        raise SettingsError(f"{name} is not set: it should hold {_ACCOUNT_SHOULD}")
    text = resolve(name, config.fcm_service_account)
    account = _account(text)
    # Last, since base64 may begin with a slash.
    if isinstance(account, str) and len(text) <= _LONGEST_PATH and _PATH.fullmatch(text):
        account = _account(_read(name, text))
    if isinstance(account, str):
        raise _wrong(name, account, _ACCOUNT_SHOULD)
    return account


class Unreachable(ConnectionError):
    """Secrets Manager could not be reached; the text has the host and the socket's message."""


@lru_cache(maxsize=16)
def resolve(name: str, value: str) -> str:
    """The secret in the setting `name`, or the secret that its ARN names, which is fetched once per environment."""
    return fetch(name, value) if value.startswith("arn:") else value


def fetch(name: str, arn: str) -> str:
    """The current value of the secret.

    Raises:
        SettingsError: there is no such secret, it has no value yet, or this function may not read it.
        Unavailable: Secrets Manager does not respond.
    """
    # Imported here because it adds 8 ms to a cold start, and a heartbeat without pending commands needs no secret.
    from urllib.error import HTTPError
    from urllib.parse import urlsplit
    from urllib.request import Request, urlopen

    if not _ARN.fullmatch(arn):
        raise SettingsError(f"{name} is wrong: it holds an ARN that is not one of Secrets Manager's")
    config = settings.load()
    region = arn.split(":")[3]
    url = config.aws_endpoint_url_secrets_manager or endpoints.url("secretsmanager", region)
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "secretsmanager.GetSecretValue"}
    body = json.dumps({"SecretId": arn}).encode()
    signed = sigv4.signed_headers(url, body, headers, "secretsmanager", region, config.credentials)
    try:
        with urlopen(Request(url, body, signed), timeout=5) as answer:  # noqa: S310  https or the local fake
            found = json.load(answer)
    except HTTPError as error:
        if error.code < 500 and error.code != 429:
            what = _error_type(error.read()) or str(error.code)
            raise SettingsError(f"{name}: the secret {arn} cannot be read: Secrets Manager says {what}") from None
        raise Unavailable(_SILENT) from error
    except OSError as error:
        # Names the host, because a name that does not resolve is a common failure of a first deploy.
        reason = getattr(error, "reason", error)
        raise Unavailable(_SILENT) from Unreachable(f"{urlsplit(url).netloc}: {reason}")
    except ValueError:  # a response that is not JSON, which may contain a secret
        raise Unavailable(_SILENT) from None
    return _text_of(name, found)


def _text_of(name: str, found: dict[str, object]) -> str:
    """A secret's value; a secret that was stored from a file is base64."""
    if isinstance(secret := found.get("SecretString"), str):
        return as_pasted(secret)
    text = _decoded(_from_base64(str(found.get("SecretBinary", ""))) or b"")
    if text is None:
        raise SettingsError(f"{name} is wrong: its secret holds bytes that are not text")
    return as_pasted(text)


def _error_type(body: bytes) -> str:
    document = _parsed(body.decode(errors="replace"))
    kind = str(document.get("__type", "")) if isinstance(document, dict) else ""
    return re.sub(r"[^\w.#-]", "", kind)[:100]


def _account(text: str, depth: int = 0) -> dict[str, object] | str:
    """The account in a text, or a description of the text's format if it contains none."""
    if depth > _DEEPEST:
        return "text that is packed too often"
    document = _parsed(text)
    if isinstance(document, str):  # JSON inside a JSON string
        return _account(as_pasted(document), depth + 1)
    if isinstance(document, dict):
        if len(document) == 1 and isinstance(only := next(iter(document.values())), str):
            return _account(as_pasted(only), depth + 1)  # a key/value pair of the Secrets Manager console
        missing = [name for name in _ACCOUNT_FIELDS if not isinstance(document.get(name), str)]
        if missing:
            return f"a JSON object without {', '.join(missing)}"
        if document["type"] != "service_account":
            return "the credentials of something else than a service account"
        # The line breaks of the key were escaped twice.
        return {**document, "private_key": document["private_key"].replace("\\n", "\n")}
    if document is None and (packed := _from_base64(text)) is not None:
        inner = _decoded(packed)
        return _account(as_pasted(inner), depth + 1) if inner is not None else "base64 of something that is no text"
    return _form(text)


def _form(text: str) -> str:
    """A description of a secret's format that contains no part of the secret."""
    document = _parsed(text)
    if isinstance(document, dict):
        return "a JSON object"
    if isinstance(document, list):
        return "a JSON list"
    if not text:
        return "nothing"
    if "\0" in text or text.startswith(("\xff\xfe", "\xfe\xff", "\ufffe")):
        return "UTF-16 text"
    if text.startswith(("{", "[")):
        return "JSON that is cut off or broken"
    if "-----BEGIN" in text:
        return "a PEM block alone"
    if len(text.splitlines()) > 1:
        return "several lines"
    return "text of another form"


def _only_value(text: str) -> str:
    """The value of a secret that the Secrets Manager console stored as a key/value pair."""
    document = _parsed(text)
    values = list(document.values()) if isinstance(document, dict) else []
    return as_pasted(values[0]) if len(values) == 1 and isinstance(values[0], str) else text


def _parsed(text: str) -> Any:
    """The JSON document in a text; None if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _from_base64(text: str) -> bytes | None:
    from base64 import b64decode

    compact = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    if len(compact) < 4 or not re.fullmatch(r"[A-Za-z0-9+/]+", compact):
        return None
    try:
        return b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except ValueError:
        return None


def _decoded(content: bytes) -> str | None:
    """Bytes decoded according to their byte order mark, or else as UTF-8."""
    marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
    encoding = next((name for mark, name in marks.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return None


def _read(name: str, path: str) -> str:
    from pathlib import Path

    try:
        text = _decoded(Path(path).expanduser().read_bytes())
    except (OSError, ValueError, RuntimeError) as error:
        # Without the path: a text that looks like a path may be a secret.
        cause = getattr(error, "strerror", None) or "no such file"
        raise _wrong(name, f"a path that cannot be read ({cause})", _ACCOUNT_SHOULD) from None
    if text is None:
        raise _wrong(name, "a path of a file that is no text", _ACCOUNT_SHOULD)
    return as_pasted(text)


def _wrong(name: str, form: str, should: str) -> SettingsError:
    return SettingsError(f"{name} is wrong: it holds {form}; it should hold {should}")
