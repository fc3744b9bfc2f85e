"""Presigned URLs of the builds' bucket, for one upload or one download, signed without boto3.

A presigned URL is a secret: only the caller gets it, and it is never logged. boto3 would add 280 ms to a cold start,
and botocore's signer alone is enough.
"""

import base64
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from nexmdm.builds.build import StoredFile
from nexmdm.runtime import endpoints
from nexmdm.runtime.errors import Unavailable
from nexmdm.runtime.settings import Settings, SettingsError

UPLOAD_SECONDS = 900
DOWNLOAD_SECONDS = 300
CONTENT_TYPE = "application/vnd.android.package-archive"


def bucket(config: Settings) -> str:
    """The bucket's name.

    Raises:
        SettingsError: APK_BUCKET is not set.
    """
    if config.apk_bucket is None:
        raise SettingsError("APK_BUCKET is not set: it should hold a versioned S3 bucket's name")
    return config.apk_bucket


def upload_address(config: Settings, file: StoredFile) -> tuple[str, dict[str, str]]:
    """The URL to PUT a declared build's file to, and the headers to send; S3 rejects another size or other bytes."""
    checksum = base64.b64encode(bytes.fromhex(file.sha256)).decode()
    headers = {"Content-Length": str(file.size), "x-amz-checksum-sha256": checksum}
    return _signed(config, "PUT", file.key, UPLOAD_SECONDS, headers=headers), headers


def download_address(config: Settings, file: StoredFile) -> str:
    """The URL of a published build's verified file, pinned to its object version. Supports range requests."""
    parameters = {
        "versionId": file.object_version or "",
        "response-content-type": CONTENT_TYPE,
        "response-content-disposition": f'attachment; filename="{file.name}"',
    }
    return _signed(config, "GET", file.key, DOWNLOAD_SECONDS, parameters=parameters)


def _signed(
    config: Settings,
    method: str,
    key: str,
    seconds: int,
    *,
    headers: dict[str, str] | None = None,
    parameters: dict[str, str] | None = None,
) -> str:
    from botocore.auth import S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    name = bucket(config)
    if config.aws_endpoint_url_s3:
        base = f"{config.aws_endpoint_url_s3.rstrip('/')}/{name}"
    else:
        base = f"https://{name}.{endpoints.host('s3', config.region)}"
    # The signer reads the query from the URL.
    query = "&".join(f"{quote(field, safe='')}={quote(value, safe='')}" for field, value in (parameters or {}).items())
    request = AWSRequest(method, f"{base}/{quote(key)}{'?' if query else ''}{query}", headers=headers)
    credentials = _credentials().get_frozen_credentials()
    S3SigV4QueryAuth(credentials, "s3", config.region, expires=seconds).add_auth(request)
    return str(request.url)


def load_signer() -> None:
    """Load the signer before the first URL is requested."""
    from botocore.auth import S3SigV4QueryAuth  # noqa: F401

    _credentials()


@lru_cache(maxsize=1)
def _credentials() -> Any:
    from botocore.session import Session

    found = Session().get_credentials()
    if found is None:
        raise Unavailable("The function has no AWS credentials to sign a URL with.")
    return found
