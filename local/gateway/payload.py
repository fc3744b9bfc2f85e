"""Converts HTTP requests to events of payload format 2.0, and results to HTTP responses, like an HTTP API.

Where the documentation is silent, it follows published measurements of the real service: paths are decoded, and every
body whose type is not in `_is_text` (including a missing type and form data) is base64.
"""

import base64
import binascii
import json
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote

from local.template import Route

# The event that the gateway passes to a function, and its parts:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
Event: TypeAlias = dict[str, Any]
ACCOUNT = "000000000000"
API_ID = "local"
OF_THE_CONNECTION = {"connection", "content-length", "transfer-encoding"}
WITHOUT_BODY = {204, 304}


@dataclass(frozen=True)
class Request:
    """The request as received: `target` is the undecoded path; header names are in lower case and may be repeated."""

    method: str
    target: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    client: str = "127.0.0.1"
    protocol: str = "HTTP/1.1"

    @property
    def path(self) -> str:
        return unquote(self.target)

    def header(self, name: str) -> str | None:
        values = [value for known, value in self.headers if known == name]
        return ",".join(values) if values else None


@dataclass(frozen=True)
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


def own_answer(status: int, message: str) -> Response:
    """A response of the HTTP API itself."""
    return Response(status, [("content-type", "application/json")], f'{{"message":"{message}"}}'.encode())


def event(request: Request, route: Route, parameters: dict[str, str], caller: Event | None) -> Event:
    """The event of format 2.0. Keys without a value are absent, as in the real event.

    caller: requestContext.authorizer.iam of an IAM route.
    """
    body, is_base64 = _body(request)
    query = _joined(parse_qsl(request.query, keep_blank_values=True))
    cookies = [cookie for name, value in request.headers if name == "cookie" for cookie in value.split("; ")]
    found = {
        "version": "2.0",
        "routeKey": route.key,
        "rawPath": request.path,
        "rawQueryString": request.query,
        "cookies": cookies,
        "headers": _joined((name, value) for name, value in request.headers if name != "cookie"),
        "queryStringParameters": query,
        "requestContext": _context(request, route, caller),
        "pathParameters": parameters,
        "body": body,
    }
    optional = {"cookies", "queryStringParameters", "pathParameters", "body"}
    kept = {key: value for key, value in found.items() if value or key not in optional}
    return {**kept, "isBase64Encoded": is_base64}


def response(result: Any) -> Response | None:
    """The response for a function's result; None if it is malformed, for which the API returns its own 500."""
    if not isinstance(result, dict) or "statusCode" not in result:
        text = result if isinstance(result, str) else json.dumps(result)
        return Response(200, [("content-type", "application/json")], text.encode())
    try:
        return _from_parts(result)
    except (TypeError, ValueError, AttributeError, binascii.Error):
        return None


def _from_parts(result: Event) -> Response:
    status = int(result["statusCode"])
    if not 200 <= status <= 599:
        raise ValueError(status)
    given = ((name.lower(), value) for name, value in (result.get("headers") or {}).items())
    headers = [(name, _header_value(value)) for name, value in given if name not in OF_THE_CONNECTION]
    headers += [("set-cookie", _header_value(cookie)) for cookie in result.get("cookies") or []]
    if not any(name == "content-type" for name, _ in headers):
        headers.append(("content-type", "text/plain;charset=UTF-8"))
    body = result.get("body")
    text = "" if body is None else body
    if not isinstance(text, str):
        raise TypeError(body)
    content = base64.b64decode(text, validate=True) if result.get("isBase64Encoded") else text.encode()
    return Response(status, headers, b"" if status in WITHOUT_BODY else content)


def _header_value(value: Any) -> str:
    if not isinstance(value, str | int | float | bool):
        raise TypeError(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text.encode("latin-1")
    if any(character in text for character in "\r\n\0"):
        raise ValueError(value)
    return text


def _body(request: Request) -> tuple[str | None, bool]:
    if not request.body:
        return None, False
    if _is_text(request.header("content-type") or ""):
        try:
            return request.body.decode(), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(request.body).decode(), True


def _is_text(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind.startswith("text/") or kind in ("application/json", "application/xml", "application/javascript")


def _joined(pairs: Any) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _context(request: Request, route: Route, caller: Event | None) -> Event:
    now = time.time()
    domain = request.header("host") or "localhost"
    context = {
        "accountId": ACCOUNT,
        "apiId": API_ID,
        "domainName": domain.partition(":")[0],
        "domainPrefix": domain.partition(":")[0].partition(".")[0],
        "http": {
            "method": request.method,
            "path": request.path,
            "protocol": request.protocol,
            "sourceIp": request.client,
            "userAgent": request.header("user-agent") or "",
        },
        "requestId": uuid.uuid4().hex[:16],
        "routeKey": route.key,
        "stage": "$default",
        "time": datetime.fromtimestamp(now, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
        "timeEpoch": int(now * 1000),
    }
    return {**context, "authorizer": {"iam": caller}} if caller else context
