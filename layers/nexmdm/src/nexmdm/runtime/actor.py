"""The author of a change: an operator, as identified by IAM, or the system itself."""

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
        """The parameters for a statement that writes its own event: `%(actor)s`, `%(actor_session)s`, ..."""
        return {
            "actor": self.name,
            "actor_session": self.session,
            "actor_ip": self.ip,
            "actor_request_id": self.request_id,
        }


def operator(arn: str, ip: str | None = None, request_id: str | None = None) -> Actor:
    """The operator with this ARN. `arn:aws:sts::1:assumed-role/Role/alice` has the session `alice`."""
    assumed = ":assumed-role/" in arn
    return Actor(arn, arn.rpartition("/")[2] if assumed else None, ip, request_id)


def system(function: str, request_id: str | None = None) -> Actor:
    """The system as author, with the name of the function: `system:sweep`."""
    return Actor(f"system:{function}", request_id=request_id)
