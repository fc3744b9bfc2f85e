"""AWS Signature Version 4 for httpx, by botocore's signer: the credentials that a person already has open the API."""

from collections.abc import Generator
from typing import Any

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

SERVICE = "execute-api"


class Signed(httpx.Auth):
    """Signs each request as it goes out.

    Args:
        credentials: botocore's, plain or refreshed by themselves (SSO, assumed roles).
        region: of the API.
    """

    requires_request_body = True

    def __init__(self, credentials: Any, region: str) -> None:
        self._credentials, self._region = credentials, region

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        headers = {"host": request.headers["host"]}
        signed = AWSRequest(request.method, str(request.url), data=request.content, headers=headers)
        SigV4Auth(self._credentials, SERVICE, self._region).add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        yield request
