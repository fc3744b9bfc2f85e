"""The two requests that functions sign themselves: a login to the database, and a question to Secrets Manager.

botocore signs them; it is in Lambda's runtime. Only its signer is loaded, at the first signature: 110 ms of a cold
start (`python -X importtime -c 'import botocore.auth'`), where a session with a client is 300.
"""

from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlencode

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

TOKEN_SECONDS = 900  # how long RDS takes a token for a new login


class Credentials(NamedTuple):
    """Those of the function's role, as Lambda gives them; the names are botocore's."""

    access_key: str
    secret_key: str
    token: str | None = None


def database_token(host: str, port: int, user: str, region: str, who: Credentials) -> str:
    """What RDS and RDS Proxy take for a password with IAM authentication; good for a login within 15 minutes."""
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
