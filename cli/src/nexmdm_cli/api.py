"""API calls: signed, retried where that is useful and safe, with readable failures."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx
from botocore.exceptions import BotoCoreError

from nexmdm_cli.failures import IS_IT_ONE, Code, Failure
from nexmdm_cli.resources import Document, Page, R, read
from nexmdm_cli.signing import UnusableCredentials
from nexmdm_cli.stack import Stack, unusable

# API Gateway responds after 30 s at the latest.
TIMEOUT = httpx.Timeout(35, connect=5)
TRIES = 6
LONGEST_WAIT = 15.0
PAGE = 500
NOT_SENT = (
    "The request cannot be sent: its path, body or idempotency key contains characters that HTTP does not allow, or a"
    " number that JSON does not have."
)
# The JSON object that a request carries.
Body: TypeAlias = dict[str, Any]
# Parameters of a query string; None is left out.
Query: TypeAlias = Mapping[str, object]
FAMILIES = {401: Code.NOT_ALLOWED, 403: Code.NOT_ALLOWED, 404: Code.NOT_FOUND}


class Api:
    """One stack's API."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        try:
            self._http = httpx.Client(base_url=stack.url, auth=stack.auth, timeout=TIMEOUT)
        except (ValueError, httpx.InvalidURL):  # the error is not quoted, because a proxy's URL may contain a password
            names = "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
            raise Failure(f"The proxy in {names} cannot be used.", Code.USAGE, "Set it to http://host:port.") from None

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Query | None = None,
        key: str | None = None,
        repeatable: bool = True,
    ) -> Any:
        """The response's JSON, or None if the response is empty.

        Args:
            key: the idempotency key, the same for every attempt.
            repeatable: False if repeating the request after a lost response would execute it twice.

        Raises:
            Failure: it was rejected, or did not succeed after several attempts.
        """
        answer = self._answered(method, path, body, query, key, repeatable)
        document = _document(answer)
        if not answer.is_success and answer.status_code != 302:
            raise self._refusal(answer, document if isinstance(document, dict) else {})
        if document is None and answer.content:
            raise Failure(f"{self.stack.url} responds, but not with JSON.", Code.NOT_FOUND, IS_IT_ONE)
        return document

    def read(
        self,
        type_: type[R],
        method: str,
        path: str,
        body: Body | None = None,
        *,
        query: Query | None = None,
        key: str | None = None,
        repeatable: bool = True,
    ) -> R:
        """The object in the response; otherwise like `call`."""
        return read(type_, self.call(method, path, body, query=query, key=key, repeatable=repeatable))

    def items(
        self, type_: type[R], method: str, path: str, body: Body | None = None, *, repeatable: bool = True
    ) -> list[R]:
        """The objects of a response without pages; otherwise like `call`."""
        return [read(type_, item) for item in self.read(Page, method, path, body, repeatable=repeatable).items]

    def pages(self, type_: type[R], path: str, query: Query | None = None, limit: int | None = None) -> Iterator[R]:
        """The items of all pages, or the first `limit`."""
        wanted = {**(query or {}), "limit": min(limit or PAGE, PAGE)}
        given = 0
        while True:
            page = self.read(Page, "GET", path, query=wanted)
            for item in page.items:
                if limit is not None and given >= limit:
                    return
                yield read(type_, item)
                given += 1
            if page.next_cursor is None:
                return
            wanted["cursor"] = page.next_cursor

    def _answered(
        self, method: str, path: str, body: Any, query: Query | None, key: str | None, repeatable: bool
    ) -> httpx.Response:
        parameters = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        headers = {"Idempotency-Key": key} if key else {}
        for attempt in range(TRIES):
            try:
                # An empty `params` would remove the query string of the path.
                answer = self._http.request(method, path, json=body, params=parameters or None, headers=headers)
            except UnusableCredentials as error:  # after a renewal; the first were checked when they were found
                raise Failure(f"{error}.", Code.NOT_ALLOWED) from None
            except (httpx.LocalProtocolError, httpx.InvalidURL, ValueError):  # ValueError: not text, or NaN
                # h11 and httpx quote the offending header, which may be a credential.
                hint = "Remove line breaks, NaN and characters that are not text."
                raise Failure(NOT_SENT, Code.USAGE, hint) from None
            except httpx.ConnectError as error:
                if attempt >= 2:  # no server is listening, which seldom changes within seconds
                    raise self._unreachable(error, key) from None
                wait = 0.2
            except httpx.TransportError as error:
                if attempt == TRIES - 1 or not repeatable:
                    raise self._unreachable(error, key) from None
                wait = 0.5 * 2**attempt
            except BotoCoreError as error:
                raise unusable(error, self.stack.profile) from None
            else:
                if attempt == TRIES - 1 or not _worth_another_try(answer, repeatable):
                    return answer
                wait = _wait(answer, 0.5 * 2**attempt)
            time.sleep(min(wait, LONGEST_WAIT))
        raise AssertionError("the last try returns or raises")

    def _unreachable(self, error: Exception, key: str | None) -> Failure:
        why = str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectError):
            return Failure(
                f"{self.stack.url} cannot be reached: {why}", Code.UNAVAILABLE, "Check the URL and the network."
            )
        hint = "It is not known whether the request was executed; check before you repeat it."
        if key:
            hint = (
                f"It is not known whether the request was accepted. Repeat it with the id {key} (--request-id, or for a"
                " resend --resend-id): it is not executed twice."
            )
        return Failure(f"{self.stack.url} accepted the request but did not respond: {why}", Code.UNAVAILABLE, hint)

    def _refusal(self, answer: httpx.Response, document: Document) -> Failure:
        """The RFC 9457 detail, which names the field; the gateway's own errors have a `message`."""
        status = answer.status_code
        detail = document.get("detail") or document.get("message") or document.get("Message") or answer.reason_phrase
        code = FAMILIES.get(status, Code.REFUSED if status < 500 else Code.UNAVAILABLE)
        advice = self._advice(status, "detail" in document, str(detail))
        return Failure(f"{detail} ({status})", code, advice, document.get("errors"))

    def _advice(self, status: int, ours: bool, detail: str) -> str | None:
        if status in (401, 403) and not ours:
            if "expired" in detail.lower():
                option = f" --profile {self.stack.profile}" if self.stack.profile else ""
                return f"Run `aws sso login{option}`, or renew the credentials in another way."
            return (
                "The credentials are not those of an operator of this stack: check --profile and --region, and attach"
                " the policy OperatorPolicyArn from the stack's outputs."
            )
        if status == 404 and not ours:
            return f"{self.stack.url} has no such route. {IS_IT_ONE}"
        if status >= 500:
            return "Try again in a moment; docs/operations.md says what to check."
        return None


def _document(answer: httpx.Response) -> Any:
    """None if the response is not JSON."""
    try:
        return answer.json()
    except ValueError:
        return None


def path(*parts: object) -> str:
    """A path with these segments, percent-encoded."""
    return "/v1/" + "/".join(quote(str(part), safe="") for part in parts)


def _worth_another_try(answer: httpx.Response, repeatable: bool) -> bool:
    """A response with Retry-After was not executed; a 502, 503 or 504 without one may have been."""
    if "retry-after" in answer.headers:
        return answer.status_code in (409, 429, 503)
    return answer.status_code == 429 or (repeatable and answer.status_code in (502, 503, 504))


def _wait(answer: httpx.Response, otherwise: float) -> float:
    after = answer.headers.get("retry-after", "")
    return float(after) if after.isdigit() else otherwise


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
