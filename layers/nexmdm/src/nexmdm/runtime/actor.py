"""Who acts: an operator, as IAM identified the caller, or the system itself."""

from msgspec import Struct


class Actor(Struct, frozen=True):
    """The author of an event.

    Attributes:
        name: an operator's ARN, or `system:<function>`.
        session: the session name of an assumed role; null for a user and for the system.
        ip: the caller's IP address as the gateway saw it.
        request_id: the id of the Lambda invocation.
    """

    name: str
    session: str | None = None
    ip: str | None = None
    request_id: str | None = None

    def parameters(self) -> dict[str, object]:
        """The parameters of a statement that writes its event itself: `%(actor)s`, `%(actor_session)s`, ..."""
        return {
            "actor": self.name,
            "actor_session": self.session,
            "actor_ip": self.ip,
            "actor_request_id": self.request_id,
        }


def operator(arn: str, ip: str | None = None, request_id: str | None = None) -> Actor:
    """The operator with this ARN. `arn:aws:sts::1:assumed-role/Role/alice` acts in the session `alice`."""
    assumed = ":assumed-role/" in arn
    return Actor(arn, arn.rpartition("/")[2] if assumed else None, ip, request_id)


def system(function: str, request_id: str | None = None) -> Actor:
    """The system itself, acting in this function: `system:sweep`."""
    return Actor(f"system:{function}", request_id=request_id)
