"""A local S3: moto's server in this process. Its contents are lost when the process ends."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

import boto3
from moto.server import ThreadedMotoServer

REGION: Literal["eu-west-1"] = "eu-west-1"


@cache
def session() -> boto3.Session:
    """Creates clients, with keys that are valid only locally. There is one, because each reads AWS's descriptions."""
    return boto3.Session(aws_access_key_id="local", aws_secret_access_key="local", region_name=REGION)


@contextmanager
def running() -> Iterator[str]:
    """The server's URL."""
    # Its log would contain every request, including presigned URLs.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def make_bucket(url: str, name: str) -> None:
    """Create a versioned bucket, like the template's."""
    client = session().client("s3", endpoint_url=url)
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
