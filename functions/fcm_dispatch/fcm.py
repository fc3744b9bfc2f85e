"""One POST to FCM and its result. firebase-admin builds and validates the message; this module posts it.

firebase-admin's own `send()` repeats a POST on 500, 503 and 429, after a lost response, on 401, and on a redirect. FCM
has no idempotency key, so each repetition may reach the device twice. This module posts with a session that has
retries, redirects and refreshing turned off, and a test counts the POSTs at a socket.
"""

import json
import ssl
import threading
import time
from email.utils import parsedate_to_datetime
from functools import lru_cache
from hmac import compare_digest
from typing import Any

import requests
import urllib3
from firebase_admin import credentials, messaging
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from google.auth.transport.requests import Request as TokenRequest
from msgspec import Struct
from nexmdm.commands.queue import Result
from nexmdm.runtime import logs, secrets, settings
from requests.adapters import HTTPAdapter

_PERMANENT = {400, 403, 404}
_KEPT_CHARACTERS = 2000  # of a response, for finding the cause of a failure

_POOL_SIZE = 32  # sending.CONCURRENCY
_NOT_AUTHORIZED = "NO_ACCESS_TOKEN"


class Account(Credentials):
    """The service account's OAuth token, renewed by one thread at a time.

    The service account's own credentials would query another Google host, in a separate thread, for the regions that
    the account may use. FCM has no regions, and a thread does not survive a frozen execution environment.
    """

    def __init__(self, certificate: credentials.Certificate) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # google.auth declares no type for it
        self._source = certificate.get_credential()
        self._renewing = threading.Lock()

    def refresh(self, request: Any) -> None:
        """Fetch a token, unless another thread has done so in the meantime."""
        with self._renewing:
            if not self.valid:
                self._source.refresh(request)
                self.token, self.expiry = self._source.token, self._source.expiry

    def forget(self, refused: str) -> None:
        """Make the next request fetch a new token, unless another thread has already replaced this one."""
        with self._renewing:
            if self.token and compare_digest(self.token, refused):
                self.token = None


class Service(Struct, frozen=True):
    """The URL and session for posting messages in this environment."""

    url: str
    account: Account
    session: requests.Session
    token_session: requests.Session
    timeout: float

    def close_idle(self) -> None:
        self.session.close()
        self.token_session.close()


class Prepared(Struct, frozen=True):
    """A message ready to be posted, and the registration token that it is sent to."""

    body: bytes
    token: str


@lru_cache(maxsize=1)
def service() -> Service:
    """The service of this environment; its OAuth token is kept across invocations.

    Raises:
        settings.SettingsError: FCM_SERVICE_ACCOUNT is not set, or is not a service account.
    """
    config = settings.load()
    try:
        certificate = credentials.Certificate(secrets.service_account(config))
    except ValueError:
        # The error's text may quote the key.
        raise settings.SettingsError(
            "FCM_SERVICE_ACCOUNT is wrong: it holds a service account whose private key cannot be read"
        ) from None
    account, token_session = Account(certificate), _once(requests.Session())
    session = AuthorizedSession(  # type: ignore[no-untyped-call]  # nor for this
        account, refresh_status_codes=(), max_refresh_attempts=0, auth_request=TokenRequest(token_session)
    )
    return Service(
        url=f"{config.fcm_endpoint.rstrip('/')}/v1/projects/{certificate.project_id}/messages:send",
        account=account,
        session=_once(session),
        token_session=token_session,
        timeout=config.fcm_timeout_seconds,
    )


def _once(session: requests.Session) -> requests.Session:
    """The session, without retries."""
    for prefix in ("http://", "https://"):
        session.mount(prefix, HTTPAdapter(max_retries=0, pool_connections=_POOL_SIZE, pool_maxsize=_POOL_SIZE))
    return session


def drop_idle_connections() -> None:
    """Close connections of the previous invocation: a frozen environment does not notice when they are closed, and the
    result of a POST on a dead connection would be unknown."""
    if service.cache_info().currsize:
        service().close_idle()


def message(data: dict[str, str], fcm_token: str | None, ttl_seconds: int) -> Prepared:
    """The message, built and validated by firebase-admin.

    Raises:
        ValueError: FCM would reject the message. Nothing was sent.
    """
    if fcm_token is None:
        raise ValueError("the device has no FCM registration token")
    made = messaging.Message(
        data=data, token=fcm_token, android=messaging.AndroidConfig(priority="high", ttl=ttl_seconds)
    )
    return Prepared(b'{"message": ' + str(made).encode() + b"}", fcm_token)


def send(prepared: Prepared, *, keep_answer: bool = True) -> Result:
    """POST one message, once. Never raises, regardless of FCM and the network.

    Args:
        keep_answer: False for a message with a secret, which FCM's response may quote.
    """
    start = time.perf_counter()
    result, refused = _post(prepared)
    if refused is not None:
        # The cached OAuth token is no longer valid. FCM accepted nothing, so another POST with a new token is safe.
        service().account.forget(refused)
        again, _ = _post(prepared)
        result = result if again.fcm_status == _NOT_AUTHORIZED else again
    result.latency_ms = round((time.perf_counter() - start) * 1000)
    if result.fcm_status == "UNREGISTERED":
        result.unregistered_token = prepared.token
    if not keep_answer:
        result.response_json = None
    for name in ("fcm_status", "error_msg", "response_json"):
        text = getattr(result, name)
        text = text and text.replace(prepared.token, "***")
        setattr(result, name, text and _storable(text)[:_KEPT_CHARACTERS])
    return result


def _post(prepared: Prepared) -> tuple[Result, str | None]:
    """The result of one POST, and the OAuth token if FCM rejected it."""
    fcm = service()
    try:
        response = fcm.session.post(
            fcm.url,
            data=prepared.body,
            headers={"Content-Type": "application/json; charset=utf-8", "X-GOOG-API-FORMAT-VERSION": "2"},
            timeout=fcm.timeout,
            allow_redirects=False,
        )
    except GoogleAuthError as error:
        return Result(outcome="retry_wait", fcm_status=_NOT_AUTHORIZED, error_msg=f"No OAuth token: {error}"), None
    except requests.RequestException as error:
        return _unanswered(error), None
    except Exception as error:
        # It is not known where the error occurred, and so whether the message was sent.
        logs.failure(error)
        return Result(outcome="unknown", fcm_status="BROKEN", error_msg=f"Sending broke: {type(error).__name__}."), None
    if response.status_code == 200:
        return _taken(response), None
    used = str(response.request.headers["Authorization"]).removeprefix("Bearer ")
    return _refused(response), used if response.status_code == 401 else None


def _taken(response: requests.Response) -> Result:
    """The result of a 200 response, which means that the message was accepted if it has a name."""
    try:
        name = response.json()["name"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return _unreadable()
    if not isinstance(name, str) or name != _storable(name):
        return _unreadable()
    return Result(
        outcome="sent", fcm_status="sent", fcm_message_id=name, http_code=200, response_json=json.dumps({"name": name})
    )


def _storable(text: str) -> str:
    """Text that PostgreSQL can store: without NUL and unpaired surrogates, which JSON allows but UTF-8 does not."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _unreadable() -> Result:
    return Result(outcome="unknown", fcm_status="UNREADABLE", http_code=200, error_msg="FCM's answer has no name.")


def _refused(response: requests.Response) -> Result:
    """The result of a response other than 200, from FCM or a proxy before it."""
    code, status = response.status_code, _status(response)
    result = Result(
        outcome="unknown",
        fcm_status=status,
        http_code=code,
        error_msg=f"FCM answered {code} {status}.",
        response_json=response.text,
    )
    if code in _PERMANENT:
        result.outcome = "failed"
    elif code in (401, 429):
        result.outcome = "retry_wait"
        result.retry_after = _retry_after(response)
    # 5xx: FCM staff confirm that messages were delivered despite a 503. 3xx: the meaning is unknown.
    return result


def _unanswered(cause: requests.RequestException) -> Result:
    """The result without a readable response. Certainly not accepted only if no connection was established."""
    text = type(cause).__name__
    if _never_connected(cause):
        return Result(outcome="retry_wait", fcm_status="NOT_CONNECTED", error_msg=f"No connection to FCM: {text}.")
    return Result(outcome="unknown", fcm_status="NO_ANSWER", error_msg=f"FCM may have the message: {text}.")


def _never_connected(cause: requests.RequestException) -> bool:
    if isinstance(cause, requests.exceptions.ConnectTimeout):
        return True
    reason = getattr(cause.args[0], "reason", None) if cause.args else None
    if isinstance(reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.NameResolutionError):
        return True
    # Only errors during the handshake: a later TLS error may occur after the message was accepted.
    return isinstance(reason, urllib3.exceptions.SSLError) and isinstance(
        reason.args[0] if reason.args else None, ssl.SSLCertVerificationError
    )


def _status(response: requests.Response) -> str:
    """FCM's code for an error: `details[].errorCode`, or else `error.status`, or else the HTTP status."""
    try:
        error = response.json()["error"]
        codes = [detail.get("errorCode") for detail in error.get("details", [])]
        return str(next((code for code in codes if code), None) or error["status"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"HTTP_{response.status_code}"


def _retry_after(response: requests.Response) -> float | None:
    """The Retry-After in seconds, given as seconds or as a date; at most a day.

    None if it is absent or in the past: then our own backoff applies, because otherwise a sweep would retry without
    pause.
    """
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value) if value.isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(seconds, 86_400.0) if seconds > 0 else None
