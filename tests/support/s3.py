"""S3 for a test: moto's server on a real socket, with a versioned bucket that the settings name.

moto keeps versions and serves ranges as S3 does. It does not check signatures, nor the checksum and length to which a
URL is bound, so tests assert what is signed instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import pytest
from nexmdm.builds import urls
from nexmdm.runtime import settings

from functions.apk_builds import storage
from local import s3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "nexmdm-test-apks"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAOFTHETEST", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test"}


class Bucket(NamedTuple):
    """`client` is the test's own boto3 client."""

    url: str
    client: "S3Client"

    def versions(self) -> list[str]:
        listed = self.client.list_object_versions(Bucket=BUCKET)
        return [version["VersionId"] for version in listed.get("Versions", [])]


@cache
def _client(url: str) -> "S3Client":
    return s3.session().client("s3", endpoint_url=url)


def _remove_bucket(client: "S3Client") -> None:
    """Remove only the test's bucket: moto keeps one state per process, which can hold another suite's bucket."""
    try:
        for page in client.get_paginator("list_object_versions").paginate(Bucket=BUCKET):
            for version in page.get("Versions", []) + page.get("DeleteMarkers", []):
                client.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
        client.delete_bucket(Bucket=BUCKET)
    except client.exceptions.NoSuchBucket:
        pass


@contextmanager
def bucket_of(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in {**KEYS, "APK_BUCKET": BUCKET, "AWS_ENDPOINT_URL_S3": url, "AWS_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    for cached in (settings.load, urls._credentials, storage._client):
        cached.cache_clear()
    client = _client(url)
    _remove_bucket(client)
    s3.make_bucket(url, BUCKET)
    yield Bucket(url, client)
    for cached in (settings.load, urls._credentials, storage._client):
        cached.cache_clear()
