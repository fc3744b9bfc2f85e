"""POSTs to webhooks. Their URLs are secrets and never appear in errors or logs.

urllib3 is part of the runtime's boto3. It makes one POST without redirects and retries, with a time limit, and adds 25
ms to a cold start (measured). urllib would add none, but follows a redirect with a GET and reports success.
"""

from functools import lru_cache

import urllib3
from msgspec import Struct
from nexmdm.runtime.errors import Named

TIMEOUT = urllib3.Timeout(connect=5, read=10)


class NotPosted(Named):
    """A POST failed; the text has the status, never the URL."""


class Request(Struct):
    """One POST; error: the reason if it cannot be made."""

    url: str = ""
    body: bytes = b""
    headers: dict[str, str] = {}
    error: str | None = None


def post_all(requests: list[Request]) -> None:
    """Make every request, even if one fails.

    Raises:
        NotPosted: at least one was not accepted, or its result is not known.
    """
    failed = [error for request in requests if (error := _post(request)) is not None]
    if failed:
        raise NotPosted("; ".join(failed))


def _post(request: Request) -> str | None:
    if request.error is not None:
        return request.error
    headers = {"Content-Type": "application/json", **request.headers}
    try:
        answer = _pool().request("POST", request.url, body=request.body, headers=headers, redirect=False, retries=False)
    except urllib3.exceptions.HTTPError as error:
        return f"The webhook was not reached or did not answer: {type(error).__name__}"
    return None if 200 <= answer.status < 300 else f"The webhook answered {answer.status}"


@lru_cache(maxsize=1)
def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(timeout=TIMEOUT)
