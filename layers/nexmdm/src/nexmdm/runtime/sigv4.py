"""The two kinds of requests that functions sign themselves: database logins and requests to Secrets Manager.

They are signed with botocore, which is part of Lambda's runtime. Only its signer is loaded, at the first signature; it
adds 110 ms to a cold start (`python -X importtime -c 'import botocore.auth'`), and a session with a client 300 ms.
"""

from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlencode

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

TOKEN_SECONDS = 900  # how long RDS accepts a token for a new login


class Credentials(NamedTuple):
    """Credentials of the function's role, as provided by Lambda; the field names are botocore's."""

    access_key: str
    secret_key: str
    token: str | None = None


def database_token(host: str, port: int, user: str, region: str, who: Credentials) -> str:
    """A token that RDS and RDS Proxy accept as password with IAM authentication, for logins within 15 minutes."""
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    login = AWSRequest("GET", f"https://{host}:{port}/?{urlencode({'Action': 'connect', 'DBUser': user})}")
    SigV4QueryAuth(cast("ReadOnlyCredentials", who), "rds-db", region, TOKEN_SECONDS).add_auth(login)
    return str(login.url).removeprefix("https://")


def signed_headers(
    url: str, body: bytes, headers: dict[str, str], service: str, region: str, who: Credentials
) -> dict[str, str]:
    """The headers of a POST, signed."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    request = AWSRequest("POST", url, headers, body)
    SigV4Auth(cast("ReadOnlyCredentials", who), service, region).add_auth(request)
    return dict(request.headers.items())
