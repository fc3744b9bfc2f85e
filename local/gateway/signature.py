"""Verifies AWS Signature Version 4 for `execute-api`, recomputing it with botocore's signer."""

import contextlib
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, HTTPHeaders
from botocore.credentials import Credentials

from local.gateway.payload import ACCOUNT, Event, Request

SERVICE = "execute-api"
SKEW = timedelta(minutes=5)
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 "
    r"Credential=(?P<key>[^/,\s]+)/(?P<date>\d{8})/(?P<region>[\w-]+)/(?P<service>[\w-]+)/aws4_request,"
    r"\s*SignedHeaders=(?P<headers>[\w;.-]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class KeyPair:
    """The only valid key pair. With a token (temporary credentials), requests must contain that token."""

    key_id: str
    secret: str
    token: str | None = None


def caller(request: Request, keys: KeyPair | None, now: datetime | None = None) -> Event | None:
    """requestContext.authorizer.iam of a correctly signed request; None means 403, for any error."""
    claim = AUTHORIZATION.fullmatch(request.header("authorization") or "")
    if keys is None or claim is None or claim["service"] != SERVICE or claim["key"] != keys.key_id:
        return None
    signed = claim["headers"].split(";")
    stamp = _timestamp(request)
    if stamp is None or not stamp.startswith(claim["date"]) or not _fresh(stamp, now or datetime.now(UTC)):
        return None
    if "host" not in signed or not _body_is_the_signed_one(request) or not _token_fits(request, keys):
        return None
    expected = _signature(request, keys, claim["region"], signed, stamp)
    if expected is None or not hmac.compare_digest(expected, claim["signature"]):
        return None
    return _identity(keys)


def _signature(request: Request, keys: KeyPair, region: str, signed: list[str], stamp: str) -> str | None:
    if not request.target.startswith("/"):
        return None
    headers = HTTPHeaders()
    for name in signed:
        values = [value for known, value in request.headers if known == name]
        if not values:
            return None
        for value in values:
            headers.add_header(name, value)
    # Only its path and query are signed, and the host is a header; the received URL may have no host.
    url = f"http://gateway{request.target}" + (f"?{request.query}" if request.query else "")
    again = AWSRequest(method=request.method, url=url, data=request.body)
    again.context["timestamp"] = stamp
    signer = _Signer(Credentials(keys.key_id, keys.secret), SERVICE, region, headers)
    return signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)


class _Signer(SigV4Auth):
    """Signs exactly the headers that the caller signed, not those that botocore would have chosen."""

    def __init__(self, credentials: Credentials, service: str, region: str, headers: HTTPHeaders) -> None:
        super().__init__(credentials, service, region)
        self._headers = headers

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        return self._headers


def _timestamp(request: Request) -> str | None:
    stamp = request.header("x-amz-date") or ""
    return stamp if re.fullmatch(r"\d{8}T\d{6}Z", stamp) else None


def _fresh(stamp: str, now: datetime) -> bool:
    with contextlib.suppress(ValueError):
        return abs(datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) - now) <= SKEW
    return False


def _body_is_the_signed_one(request: Request) -> bool:
    """The signature is recomputed for the received body; a hash in a header must match it."""
    claimed = request.header("x-amz-content-sha256")
    return claimed is None or hmac.compare_digest(claimed.encode(), hashlib.sha256(request.body).hexdigest().encode())


def _token_fits(request: Request, keys: KeyPair) -> bool:
    given = request.header("x-amz-security-token")
    return hmac.compare_digest((given or "").encode(), (keys.token or "").encode())


def _identity(keys: KeyPair) -> Event:
    return {
        "accessKey": keys.key_id,
        "accountId": ACCOUNT,
        "callerId": keys.key_id,
        "cognitoIdentity": None,
        "principalOrgId": None,
        "userArn": f"arn:aws:iam::{ACCOUNT}:user/local-operator",
        "userId": keys.key_id,
    }
