"""What API Gateway says itself."""

from msgspec import Struct


class GatewayMessage(Struct, forbid_unknown_fields=True, kw_only=True):
    """What API Gateway says itself: no such route, no valid signature, too large, too many, out of order."""

    message: str | None
