"""How a phone downloads a build: by the server's route, which redirects to the storage."""

from collections.abc import Callable
from hashlib import sha256

from local.fleet.ledger import Ledger
from local.fleet.link import FieldLink, Link, Response, credential


class DownloadError(Exception):
    pass


async def by_redirect(link: FieldLink, ledger: Ledger, device_token: str, data: dict[str, str]) -> None:
    """Like the existing agent, whose HTTP client follows the redirect and also sends the device token there.

    Raises:
        DownloadError: it was rejected, or the bytes are not those of the build.
    """
    got = await link.send("GET", data["download_url"], None, credential(device_token, "X-Device-Token"))
    if got is None or got.status != 200 or got.redirect is None:
        raise DownloadError(f"HTTP {got.status if got else 'timeout'}")
    _compare(ledger, got.content, got.redirect["x-apk-sha256"])


async def in_ranges(
    link: Link, ledger: Ledger, device_token: str, data: dict[str, str], halfway: Callable[[], None]
) -> None:
    """As after an interrupted connection: in two ranges, without sending the device token to the storage.

    Args:
        halfway: called between the two.

    Raises:
        DownloadError: it was rejected, or the bytes are not those of the build.
    """
    got = await link.send("GET", data["download_url"], None, credential(device_token, "X-Device-Token"))
    if got is None or got.status != 302:
        raise DownloadError(f"the download was answered with {got.status if got else 'nothing'}")
    size, url = int(data["file_size"]), got.headers["location"]
    first = await _range(link, url, f"bytes=0-{size // 2 - 1}")
    halfway()
    rest = await _range(link, url, f"bytes={size // 2}-")
    _compare(ledger, first.content + rest.content, got.headers["x-apk-sha256"])


async def _range(link: Link, url: str, wanted: str) -> Response:
    got = await link.send("GET", url, None, {"Range": wanted})
    if got is None or got.status != 206:
        raise DownloadError(f"{wanted} was answered with {got.status if got else 'nothing'}")
    return got


def _compare(ledger: Ledger, content: bytes, expected: str) -> None:
    if sha256(content).hexdigest() != expected:
        ledger.corrupt += 1
        raise DownloadError("the bytes are not those of the build")
