"""AWS Signature Version 4 for httpx with botocore's signer and the user's AWS credentials."""

import re
from collections.abc import Generator
from typing import Any

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import NoCredentialsError

from nexmdm_cli import inputs

# The characters that an HTTP header allows; AWS credentials consist of letters, digits and + / =.
VISIBLE = re.compile(r"[!-~]+")
NAMES = {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY", "token": "AWS_SESSION_TOKEN"}
SERVICE = "execute-api"


class UnusableCredentials(ValueError):
    """A credential contains characters that a header cannot contain; names the credential, never its value."""


def as_pasted(credentials: Any) -> ReadOnlyCredentials:
    """botocore's credentials without the white space, line breaks and quotes that pasting can add.

    Raises:
        NoCredentialsError: there are none.
        UnusableCredentials: one of them contains other characters that are not ASCII.
    """
    if credentials is None:
        raise NoCredentialsError
    frozen = credentials.get_frozen_credentials()
    values = {name: inputs.secret(value) if (value := getattr(frozen, name)) else value for name in NAMES}
    for name, value in values.items():
        if value and not VISIBLE.fullmatch(value):
            raise UnusableCredentials(
                f"{NAMES[name]} (or {NAMES[name].lower()} of the profile) contains a line break, a blank or a character"
                " that is not ASCII"
            )
    return ReadOnlyCredentials(**values)


class Signed(httpx.Auth):
    """Signs each outgoing request.

    Args:
        credentials: botocore's, static or automatically refreshed (SSO, assumed roles).
        region: of the API.
    """

    requires_request_body = True

    def __init__(self, credentials: Any, region: str) -> None:
        self._credentials, self._region = credentials, region

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        headers = {"host": request.headers["host"]}
        signed = AWSRequest(request.method, str(request.url), data=request.content, headers=headers)
        SigV4Auth(as_pasted(self._credentials), SERVICE, self._region).add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        yield request
