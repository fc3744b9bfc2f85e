"""Uploads to and downloads from presigned URLs, with a progress bar on stderr."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.output import Output

CHUNK = 256 * 1024
TRIES = 3
TIMEOUT = httpx.Timeout(60, connect=10)


def sha256_of(file: Path) -> str:
    with open(file, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def upload(out: Output, file: Path, url: str, headers: dict[str, str]) -> None:
    """PUT the file; start again if the connection breaks.

    Raises:
        Failure: S3 rejects it or cannot be reached.
    """
    for attempt in range(TRIES):
        with _bar(out, f"uploading {file.name}", file.stat().st_size) as advance:
            try:
                answer = httpx.put(url, content=_read(file, advance), headers=headers, timeout=TIMEOUT)
                break
            except httpx.TransportError as error:
                if attempt == TRIES - 1:
                    raise _broken(error) from None
    if answer.is_error:
        raise Failure(f"S3 rejected the upload ({answer.status_code}): {answer.text[:300]}", Code.REFUSED)


def download(out: Output, url: str, file: Path, size: int, sha256: str) -> None:
    """Download into the file, which appears under its name only after its bytes are verified.

    Raises:
        Failure: it cannot be downloaded or written, or has a different checksum.
    """
    if file.is_dir():
        raise Failure(f"{file} cannot be written: it is a folder.", Code.USAGE)
    part = file.with_name(f"{file.name}.part")
    digest = hashlib.sha256()
    try:
        with (
            httpx.stream("GET", url, timeout=TIMEOUT) as answer,
            open(part, "wb") as target,
            _bar(out, f"fetching {file.name}", size) as advance,
        ):
            if answer.is_error:
                raise Failure(f"S3 rejected the download ({answer.status_code}).", Code.REFUSED)
            for chunk in answer.iter_bytes(CHUNK):
                digest.update(chunk)
                target.write(chunk)
                advance(len(chunk))
        if digest.hexdigest() != sha256:
            raise Failure(f"The downloaded file has the SHA-256 {digest.hexdigest()}, not {sha256}.")
        os.replace(part, file)
    except httpx.TransportError as error:
        raise _broken(error) from None
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}.", Code.USAGE) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _read(file: Path, advance: Callable[[int], object]) -> Iterator[bytes]:
    with open(file, "rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk
            advance(len(chunk))


@contextlib.contextmanager
def _bar(out: Output, text: str, size: int) -> Iterator[Callable[[int], object]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out.notes, disable=not out.notes.is_terminal) as progress:
        task = progress.add_task(text, total=size)
        yield lambda count: progress.advance(task, count)


def _broken(error: Exception) -> Failure:
    why = str(error) or type(error).__name__
    return Failure(f"S3 cannot be reached: {why}", Code.UNAVAILABLE, "Run the command again.")
