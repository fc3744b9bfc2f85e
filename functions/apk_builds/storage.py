"""The uploaded file of a build, read once from S3 by boto3."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from nexmdm.builds import urls
from nexmdm.runtime import endpoints
from nexmdm.runtime.errors import Conflict, Unavailable
from nexmdm.runtime.settings import Settings, SettingsError

CHUNK = 1024 * 1024


class Upload(NamedTuple):
    """The newest version of an object; `chunks` can be read only once."""

    version: str
    size: int
    chunks: Iterator[bytes]


@contextmanager
def upload(config: Settings, key: str) -> Iterator[Upload]:
    """The uploaded file of a declared build. Version and bytes come from one response, so no later PUT can interfere.

    Raises:
        Conflict: nothing was uploaded.
        Unavailable: S3 does not respond.
        SettingsError: the bucket is not versioned.
    """
    bucket = urls.bucket(config)
    try:
        answer = _client(config).get_object(Bucket=bucket, Key=key)
        version = answer.get("VersionId")
        if version in (None, "null"):
            raise SettingsError("APK_BUCKET is wrong: it should hold a versioned S3 bucket's name")
        with closing(answer["Body"]) as body:
            yield Upload(version, answer["ContentLength"], body.iter_chunks(CHUNK))
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            raise Conflict("Nothing was uploaded yet: PUT the file to upload_url, then complete.") from None
        raise Unavailable("S3 did not return the file. Try again.") from error
    except BotoCoreError as error:
        raise Unavailable("S3 does not respond. Try again.") from error


@lru_cache(maxsize=1)
def _client(config: Settings) -> Any:
    options = Config(
        connect_timeout=3,
        read_timeout=5,
        retries={"mode": "standard", "max_attempts": 2},
        s3={"addressing_style": "path" if config.aws_endpoint_url_s3 else "virtual"},
    )
    endpoint = config.aws_endpoint_url_s3 or endpoints.url("s3", config.region)
    return boto3.client("s3", endpoint_url=endpoint, region_name=config.region, config=options)
