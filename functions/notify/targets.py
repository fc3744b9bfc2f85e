"""The targets of notifications: the named routes in NOTIFICATION_ROUTES, and WEBHOOK_URL for those without a route.

URLs and keys are secrets and never appear in errors or logs.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from nexmdm.runtime import secrets
from nexmdm.runtime.settings import Settings, SettingsError

from functions.notify import shapes
from functions.notify.message import Message
from functions.notify.webhook import Request

FORM = (
    'JSON {"name": {"url": "https://..", "shape": "slack", "discord", "pagerduty" or "json", "key": "for pagerduty the'
    " routing key, for json the HMAC key\"}}, or a secret's ARN"
)


class Target(Struct, forbid_unknown_fields=True):
    """One route."""

    url: Annotated[str, Meta(pattern="^https?://", max_length=2000)]
    shape: Literal["slack", "discord", "pagerduty", "json"]
    key: Annotated[str, Meta(min_length=1, max_length=500)] | None = None


class Targets(Struct):
    """routes: by name. default: for notifications without a route; None: they are not posted."""

    routes: dict[str, Target]
    default: Target | None


def load(config: Settings) -> Targets:
    """The targets of the settings.

    Raises:
        SettingsError: neither is set, or NOTIFICATION_ROUTES is not a valid document.
    """
    if config.webhook_url is None and config.notification_routes is None:
        raise SettingsError(
            "WEBHOOK_URL and NOTIFICATION_ROUTES are not set: one should hold where notifications are posted"
        )
    default = None
    if config.webhook_url is not None:
        url = secrets.webhook_url(config)
        default = Target(url, config.webhook_shape or shapes.of_host(url))
    return Targets(_routes(config.notification_routes), default)


def requests(known: Targets, message: Message) -> Iterator[Request]:
    """The requests for one message.

    Raises:
        SettingsError: it names a route that NOTIFICATION_ROUTES does not have.
    """
    if not message.routes:
        if known.default is not None:
            yield from _of(known.default, message)
        return
    missing = [name for name in message.routes if name not in known.routes]
    for name in message.routes:
        if name in known.routes:
            yield from _of(known.routes[name], message)
    if missing:
        # Not posted to a default, so that a typing error is noticed; last, so that the other routes are not delayed.
        yield Request(error=f"NOTIFICATION_ROUTES has no route {missing[0]!r}, which an alert rule names")


def _of(target: Target, message: Message) -> Iterator[Request]:
    for body, headers in shapes.SHAPES[target.shape](message, target.key or ""):
        yield Request(target.url, body, headers)


def _routes(setting: str | None) -> dict[str, Target]:
    if setting is None:
        return {}
    try:
        found = msgspec.json.decode(secrets.resolve("NOTIFICATION_ROUTES", setting), type=dict[str, Target])
    except (msgspec.MsgspecError, UnicodeError):
        raise SettingsError(f"NOTIFICATION_ROUTES is wrong: it should hold {FORM}") from None
    for name, target in found.items():
        if target.shape in ("pagerduty", "json") and target.key is None:
            raise SettingsError(
                f"NOTIFICATION_ROUTES is wrong: the route {name[:63]!r} has no key; it should hold {FORM}"
            )
    return found
