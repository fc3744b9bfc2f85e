"""One POST to a webhook of Slack's or Discord's shape. Its address is a secret and is in no error and no log.

urllib3 comes with the runtime's boto3: one POST, no redirect followed, no retry, bounded in time. It costs 25 ms of a
cold start (measured); urllib, which costs nothing more, would follow a redirect with a GET and call it a success.
"""

import json
from functools import lru_cache
from urllib.parse import urlsplit

import urllib3
from nexmdm.runtime.errors import Named

TIMEOUT = urllib3.Timeout(connect=5, read=10)
LONGEST = {"slack": 3_000, "discord": 1_900}  # Discord refuses more than 2,000 characters, Slack cuts at 4,000


class NotPosted(Named):
    """Says what was answered, never to whom it was posted."""


def post(url: str, shape: str | None, title: str, text: str) -> None:
    """Post a message; `shape` slack or discord, or None to tell by the host.

    Raises:
        NotPosted: it was not taken, or nobody knows.
    """
    body = json.dumps(_body(shape or shape_of(url), title, text)).encode()
    try:
        answer = _pool().request(
            "POST", url, body=body, headers={"Content-Type": "application/json"}, redirect=False, retries=False
        )
    except urllib3.exceptions.HTTPError as error:
        raise NotPosted(f"The webhook was not reached or did not answer: {type(error).__name__}") from None
    if not 200 <= answer.status < 300:
        raise NotPosted(f"The webhook answered {answer.status}")


def shape_of(url: str) -> str:
    """discord for Discord's hosts, slack for every other: Mattermost and Rocket.Chat take it too."""
    host = (urlsplit(url).hostname or "").removeprefix("canary.").removeprefix("ptb.")
    return "discord" if host in ("discord.com", "discordapp.com") else "slack"


def _body(shape: str, title: str, text: str) -> dict[str, object]:
    if shape == "discord":
        # `[a text](an address)` hides where it leads, and an agent's version is what the device says it is.
        text = text.replace("](", "] (")
    room = LONGEST[shape] - len(title)
    text = text if len(text) <= room else f"{text[:room]} …"
    if shape == "discord":
        # An alias may read @everyone.
        return {"content": f"**{title}**\n{text}", "allowed_mentions": {"parse": []}}
    return {"text": f"*{_escaped(title)}*\n{_escaped(text)}"}


def _escaped(text: str) -> str:
    """As Slack wants it: an alias may read <!channel>."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@lru_cache(maxsize=1)
def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(timeout=TIMEOUT)
