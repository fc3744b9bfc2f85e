"""One POST to FCM, and what became of it. The only module that knows firebase-admin, and its private names.

firebase-admin 7.7 sends a message again by itself: on 500, 503 and 429, on a lost answer, on 401, on a redirect. FCM
has no idempotency key, so every one of those may reach the device twice. Here all of it is off, and a test counts POSTs
at a socket; the version is pinned for the private names that this takes.
"""

import json
import ssl
import time
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from typing import Any

import firebase_admin
import requests
import urllib3
from firebase_admin import credentials, exceptions, messaging
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request as TokenRequest
from nexmdm.commands.queue import Result
from nexmdm.runtime import logs, secrets, settings
from requests.adapters import HTTPAdapter

_PERMANENT = {400, 403, 404}
_KEPT_CHARACTERS = 2000  # of an answer, for people who look for the cause

_POOL_SIZE = 32  # sending.CONCURRENCY


@lru_cache(maxsize=1)
def service() -> Any:
    """The messaging service of this environment; its OAuth token is kept across invocations.

    Raises:
        settings.SettingsError: FCM_SERVICE_ACCOUNT is not set.
    """
    config = settings.load()
    try:
        certificate = credentials.Certificate(secrets.service_account(config))
    except ValueError:
        # Its text may quote the key.
        raise settings.SettingsError(
            "FCM_SERVICE_ACCOUNT is wrong: it holds a service account whose private key cannot be read"
        ) from None
    # Its client for asyncio reads the certificate bundle three times, a fifth of a cold start; nothing here uses it.
    messaging._http_client.HttpxAsyncClient = _Unused
    app = firebase_admin.initialize_app(certificate, {"httpTimeout": config.fcm_timeout_seconds}, name="nexmdm")
    made = messaging._get_messaging_service(app)
    made._fcm_url = f"{config.fcm_endpoint.rstrip('/')}/v1/projects/{app.project_id}/messages:send"
    # google-auth 2 asks another Google host, in a thread of its own, which regions the account may call. FCM has none,
    # and a thread does not live through a frozen environment.
    made._credential._is_regional_access_boundary_lookup_required = lambda: False
    session = made._client.session
    session._max_refresh_attempts = 0
    session.max_redirects = 0
    # The third prefix is longer than "https://", so firebase-admin's own adapter would win without it.
    for prefix in ("http://", "https://", "https://fcm.googleapis.com"):
        session.mount(prefix, HTTPAdapter(max_retries=0, pool_connections=_POOL_SIZE, pool_maxsize=_POOL_SIZE))
    return made


class _Unused:
    def __init__(self, **_: Any) -> None:
        """Takes what firebase-admin gives to its client for asyncio."""

    async def aclose(self) -> None:
        """There is nothing to close."""


def drop_idle_connections() -> None:
    """Begin an invocation without connections of the one before: a frozen environment does not see them close, and a
    POST into a dead one would have to be called unknown."""
    if service.cache_info().currsize:
        service()._client.session.close()


def message(data: dict[str, str], fcm_token: str, ttl_seconds: int) -> messaging.Message:
    """The message as firebase-admin will take it.

    Raises:
        ValueError: it would not. Nothing was sent.
    """
    made = messaging.Message(
        data=data, token=fcm_token, android=messaging.AndroidConfig(priority="high", ttl=ttl_seconds)
    )
    service().encode_message(made)
    return made


def send(message: messaging.Message, *, keep_answer: bool = True) -> Result:
    """POST one message, once. Never raises, whatever FCM, the network or firebase-admin do.

    Args:
        keep_answer: False for a message with a secret in it, which the text of FCM's answer may quote.
    """
    start = time.perf_counter()
    result = _post(message)
    if result.http_code == 401:
        result = _post_after_refresh(message, result)
    result.latency_ms = round((time.perf_counter() - start) * 1000)
    if result.fcm_status == "UNREGISTERED":
        result.unregistered_token = message.token
    if not keep_answer:
        result.response_json = None
    for name in ("fcm_status", "error_msg", "response_json"):
        text = getattr(result, name)
        text = text and text.replace(message.token, "***")
        setattr(result, name, text and _storable(text)[:_KEPT_CHARACTERS])
    return result


def _post_after_refresh(message: messaging.Message, refused: Result) -> Result:
    """401: the cached OAuth token is no longer good. FCM took nothing, so one more POST with a fresh token is safe."""
    timeout = settings.load().fcm_timeout_seconds  # google-auth's own is 120 s
    try:
        service()._credential.refresh(partial(TokenRequest(), timeout=timeout))
    except GoogleAuthError:
        return refused
    return _post(message)


def _post(message: messaging.Message) -> Result:
    try:
        name = service().send(message)
    except GoogleAuthError as error:
        return Result(outcome="retry_wait", fcm_status="NO_ACCESS_TOKEN", error_msg=f"No OAuth token: {error}")
    except exceptions.FirebaseError as error:
        if error.http_response is not None:
            return _refused(error.http_response)
        return _unanswered(error.cause)
    except Exception as error:
        # firebase-admin breaks on errors that are not in FCM's form; the answer is there all the same.
        response = getattr(error.__context__, "response", None)
        if response is not None:
            return _refused(response)
        if isinstance(error, KeyError | TypeError):
            return _unreadable()
        # Where it broke is not known, so neither is whether the message had left.
        logs.failure(error)
        return Result(outcome="unknown", fcm_status="BROKEN", error_msg=f"Sending broke: {type(error).__name__}.")
    if not isinstance(name, str) or name != _storable(name):
        return _unreadable()
    return Result(
        outcome="sent", fcm_status="sent", fcm_message_id=name, http_code=200, response_json=json.dumps({"name": name})
    )


def _storable(text: str) -> str:
    """As PostgreSQL takes it: no NUL, no half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _unreadable() -> Result:
    return Result(outcome="unknown", fcm_status="UNREADABLE", http_code=200, error_msg="FCM's answer has no name.")


def _refused(response: requests.Response) -> Result:
    """FCM, or something before it, answered other than 200."""
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
    # 5xx: FCM staff confirm 503s whose message was delivered. 3xx: who knows what stands there.
    return result


def _unanswered(cause: BaseException | None) -> Result:
    """No answer that could be read. Certainly not accepted only when no connection was made."""
    text = type(cause).__name__
    if _never_connected(cause):
        return Result(outcome="retry_wait", fcm_status="NOT_CONNECTED", error_msg=f"No connection to FCM: {text}.")
    return Result(outcome="unknown", fcm_status="NO_ANSWER", error_msg=f"FCM may have the message: {text}.")


def _never_connected(cause: BaseException | None) -> bool:
    if isinstance(cause, requests.exceptions.ConnectTimeout):
        return True
    reason = getattr(cause.args[0], "reason", None) if cause is not None and cause.args else None
    if isinstance(reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.NameResolutionError):
        return True
    # Only what ends the handshake: a TLS error later may come after the message was taken.
    return isinstance(reason, urllib3.exceptions.SSLError) and isinstance(
        reason.args[0] if reason.args else None, ssl.SSLCertVerificationError
    )


def _status(response: requests.Response) -> str:
    """FCM's own word for an error: `details[].errorCode`, else `error.status`, else the HTTP code."""
    try:
        error = response.json()["error"]
        codes = [detail.get("errorCode") for detail in error.get("details", [])]
        return str(next((code for code in codes if code), None) or error["status"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"HTTP_{response.status_code}"


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that FCM asks to wait, given as seconds or as a date; at most a day.

    None when it asks for nothing, or for a time that is over: then our own backoff, or a sweep would try without pause.
    """
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value) if value.isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(seconds, 86_400.0) if seconds > 0 else None
