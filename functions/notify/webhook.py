"""POSTs to webhooks. Their URLs are secrets and are in no error and no log.

urllib3 comes with the runtime's boto3: one POST, no redirect followed, no retry, bounded in time. It costs 25 ms of a
cold start (measured); urllib, which costs nothing more, would follow a redirect with a GET and call it a success.
"""

from functools import lru_cache

import urllib3
from msgspec import Struct
from nexmdm.runtime.errors import Named

TIMEOUT = urllib3.Timeout(connect=5, read=10)


class NotPosted(Named):
    """Says what was answered, never to whom it was posted."""


class Request(Struct):
    """One POST; error: it cannot be made, and why."""

    url: str = ""
    body: bytes = b""
    headers: dict[str, str] = {}
    error: str | None = None


def post_all(requests: list[Request]) -> None:
    """Make every request, also when one fails.

    Raises:
        NotPosted: at least one was not taken, or it is not known.
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
