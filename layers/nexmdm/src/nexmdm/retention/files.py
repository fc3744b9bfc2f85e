"""Files of gzip JSON lines in S3, each with a manifest, written before their rows are removed.

The manifest is written last and has the file's SHA-256, so it proves that the file is complete. After a crash, the next
run writes both again under the same names. No transaction is open while S3 is called.
"""

import hashlib
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

from nexmdm.heartbeats.partitions import Kept
from nexmdm.runtime import endpoints
from nexmdm.runtime.settings import Settings

# S3 accepts at most 10,000 parts of at least 5 MiB. One part and one chunk of lines are in memory.
PART_BYTES = 8 * 2**20
GZIP = 31  # zlib's number for the format; it includes no timestamp, so the same lines give the same file


class NotWritten(Kept):
    """S3 did not accept a file."""


def write(
    config: Settings, bucket: str, names: tuple[str, str], chunks: Iterable[tuple[int, bytes]], facts: dict[str, object]
) -> int:
    """Write a file and its manifest; return its number of rows.

    Args:
        names: the keys of the file and of its manifest.
        chunks: the number of lines, and the lines, each with its newline.
        facts: further members of the manifest.

    Raises:
        NotWritten: S3 rejected it or could not be reached.
    """
    from boto3.exceptions import Boto3Error
    from boto3.s3.transfer import TransferConfig
    from botocore.exceptions import BotoCoreError, ClientError

    # In this thread and in order, because concurrent parts would all be in memory.
    way = TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        use_threads=False,
        preferred_transfer_client="classic",
    )
    client = _s3(config.aws_endpoint_url_s3 or endpoints.url("s3", config.region))
    file, manifest = names
    body = _Compressed(chunks)
    try:
        client.upload_fileobj(body, bucket, file, Config=way)
        said = {"file": file, **facts, "rows": body.rows, "sha256": body.sha256.hexdigest()}
        client.put_object(Bucket=bucket, Key=manifest, Body=msgspec.json.encode(said))
    except (Boto3Error, BotoCoreError, ClientError) as error:
        reason = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        raise NotWritten(
            f"s3://{bucket}/{file} was not written ({reason}). Its rows were kept; the next cleanup writes it again."
        ) from error
    return body.rows


class _Compressed:
    """Chunks of lines as a file object that boto3 reads incrementally."""

    def __init__(self, chunks: Iterable[tuple[int, bytes]]) -> None:
        self.rows = 0
        self.sha256 = hashlib.sha256()
        self._chunks = iter(chunks)
        self._gzip = zlib.compressobj(wbits=GZIP)
        self._ready = bytearray()
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        while not self._ended and (size < 0 or len(self._ready) < size):
            chunk = next(self._chunks, None)
            if chunk is None:
                self._ready += self._gzip.flush()
                self._ended = True
            else:
                self.rows += chunk[0]
                self._ready += self._gzip.compress(chunk[1])
        end = len(self._ready) if size < 0 else size
        part = bytes(self._ready[:end])
        del self._ready[:end]
        self.sha256.update(part)
        return part


@lru_cache(maxsize=1)
def _s3(endpoint: str) -> Any:
    # Imported here because boto3 takes 280 ms, and most environments export nothing.
    import boto3
    from botocore.config import Config

    # A short timeout, because a call that hangs would use up the time of the other policies. The rows are kept.
    options = Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 4, "mode": "standard"})
    return boto3.client("s3", endpoint_url=endpoint, config=options)
