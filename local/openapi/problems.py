"""The body of API Gateway's own errors."""

from msgspec import Struct


class GatewayMessage(Struct, forbid_unknown_fields=True, kw_only=True):
    """An error of API Gateway itself: no such route, no valid signature, too large, too many requests, unavailable."""

    message: str | None
