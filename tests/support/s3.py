"""S3 for a test: moto's server on a real socket, with a versioned bucket that the settings name.

moto keeps versions and answers ranges as S3 does. It checks neither signatures nor the checksum and length that an
address is bound to: what is signed is asserted instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import boto3
import httpx
import pytest
from nexmdm.builds import urls
from nexmdm.runtime import settings

from functions.apk_builds import storage
from local import s3

BUCKET = "nexmdm-test-apks"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAOFTHETEST", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test"}


class Bucket(NamedTuple):
    """client: boto3's, of the test itself."""

    url: str
    client: object

    def versions(self) -> list[str]:
        listed = self.client.list_object_versions(Bucket=BUCKET)
        return [version["VersionId"] for version in listed.get("Versions", [])]


@contextmanager
def bucket_of(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in {**KEYS, "APK_BUCKET": BUCKET, "AWS_ENDPOINT_URL_S3": url, "AWS_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    for cached in (settings.load, urls._credentials, storage._client):
        cached.cache_clear()
    httpx.post(f"{url}/moto-api/reset").raise_for_status()
    s3.make_bucket(url, BUCKET)
    yield Bucket(url, boto3.client("s3", endpoint_url=url, region_name="eu-west-1"))
    for cached in (settings.load, urls._credentials, storage._client):
        cached.cache_clear()
