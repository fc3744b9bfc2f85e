"""Forwards the page's requests to the API, signed with the operator's credentials: only /v1/, only needed headers."""

import re
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
from botocore.exceptions import BotoCoreError, ClientError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from nexmdm_cli.console.problems import problem
from nexmdm_cli.signing import UnusableCredentials

# Longer than the 30 s that an HTTP API waits for its function.
TIMEOUT = httpx.Timeout(35, connect=5)
LONGEST_BODY = 1024 * 1024
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# Segments without dot segments or encoded slashes, so that the signed path is the one that was checked.
PATH = re.compile(r"/v1(?:/(?!\.{1,2}(?:/|$))(?:[A-Za-z0-9._~:@!$&'()*+,;=-]|%(?!00|2[efEF]|5[cC])[0-9A-Fa-f]{2})+)+")
QUERY = re.compile(r"(?:[A-Za-z0-9._~:@!$&'()*+,;=/?-]|%[0-9A-Fa-f]{2})*")
SENT = ("content-type", "idempotency-key")
RETURNED = ("content-type", "idempotency-replayed", "retry-after")


class Forwarding:
    """An async context manager around the connections to the API."""

    def __init__(self, api_url: str, auth: httpx.Auth) -> None:
        self.api_url = api_url.rstrip("/")
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self._http = httpx.AsyncClient(auth=auth, cookies=no_cookies, timeout=TIMEOUT, follow_redirects=False)

    async def __aenter__(self) -> "Forwarding":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def __call__(self, request: Request) -> Response:
        """The API's response, or a problem document that says why there is none."""
        path = request.scope["raw_path"].decode("latin-1").partition("?")[0].removeprefix("/api")
        query = request.scope["query_string"].decode("latin-1")
        if not PATH.fullmatch(path) or not QUERY.fullmatch(query):
            return problem(404, "Not found", "Only paths below /v1/ are forwarded to the API.")
        body = await _body(request)
        if body is None:
            return problem(413, "Body too large", f"The API accepts bodies of up to {LONGEST_BODY} bytes.")
        headers = {name: request.headers[name] for name in SENT if name in request.headers}
        try:
            answer = await self._http.request(
                request.method, f"{self.api_url}{path}{f'?{query}' if query else ''}", content=body, headers=headers
            )
        except httpx.TimeoutException:
            return problem(
                504, "No response", f"{self.api_url} did not respond in time. The request may still be executed."
            )
        except (httpx.LocalProtocolError, UnicodeEncodeError):
            # h11 quotes the offending header, which may be a credential.
            return problem(400, "Not sent", "A header of the request contains characters that HTTP does not allow.")
        except UnusableCredentials as error:
            return problem(502, "No credentials", f"The request cannot be signed: {error}.")
        except httpx.HTTPError as error:
            return problem(502, "API unreachable", f"{self.api_url} cannot be reached: {error}")
        except (BotoCoreError, ClientError) as error:
            return problem(502, "No credentials", f"The request cannot be signed: {error}")
        returned = {name: answer.headers[name] for name in RETURNED if name in answer.headers}
        return Response(answer.content, answer.status_code, returned)


async def _body(request: Request) -> bytes | None:
    """The request's body; None if it is too long or the client has disconnected."""
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > LONGEST_BODY:
                return None
            parts.append(part)
    except ClientDisconnect:
        return None
    return b"".join(parts)
