"""QR codes for the agent and for Android's provisioning, in the terminal and as PNG."""

import base64
import hashlib
import io
import json
import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode

import segno
from rich.text import Text

from nexmdm_cli.output import Output
from nexmdm_cli.terminal import can_show

RECEIVER = "com.nexmdm/.ConfigReceiver"
ADMIN_COMPONENT = "com.nexmdm/.NexDeviceAdminReceiver"
EXTRA = "android.app.extra.PROVISIONING_"
BLOCKS = "█▀▄"
QUIET = 2  # width of the border in the terminal; a PNG has the four modules of the standard


def enrollment(server: str, token: str, alias: str) -> str:
    """The content that the agent scans. Characters of the alias that are special in a query string are percent-encoded,
    because the agent inserts it into one unchanged.
    """
    in_query = re.sub("[&#+%]", lambda found: quote(found[0]), alias)
    return _document({"server_url": server, "admin_key": token, "alias": in_query})


def adb_line(server: str, token: str, alias: str, hmac_keys: dict[str, str]) -> str:
    """The same for a phone connected by cable. adb passes its arguments to a second shell, so they are quoted for
    both."""
    extras = {"server_url": server, "admin_key": token, "alias": alias, **hmac_keys}
    words = ["am", "broadcast", "-a", "com.nexmdm.CONFIGURE", "-n", RECEIVER]
    for name, value in extras.items():
        words += ["--es", name, value]
    return shlex.join(["adb", "shell", shlex.join(words)])


class Agent(NamedTuple):
    """The agent that becomes device owner.

    Attributes:
        signer_fingerprint: SHA-256 of the certificate that signs it, in hex.
    """

    component: str
    download_url: str
    signer_fingerprint: str


def device_owner(agent: Agent, wifi: dict[str, str]) -> str:
    """The content that a factory-reset phone scans to download the agent and make it device owner.

    Args:
        wifi: SSID, PASSWORD and SECURITY_TYPE, for a phone that has no network yet.
    """
    checksum = base64.urlsafe_b64encode(bytes.fromhex(agent.signer_fingerprint)).decode().rstrip("=")
    payload = {
        f"{EXTRA}DEVICE_ADMIN_COMPONENT_NAME": agent.component,
        f"{EXTRA}DEVICE_ADMIN_PACKAGE_DOWNLOAD_LOCATION": agent.download_url,
        f"{EXTRA}DEVICE_ADMIN_SIGNATURE_CHECKSUM": checksum,
        **{f"{EXTRA}WIFI_{name}": value for name, value in wifi.items()},
    }
    return _document(payload)


def download_url(server: str, token: str, package_name: str) -> str:
    """The URL from which a phone without credentials downloads the agent; Android accepts only a plain URL."""
    return f"{server}/v1/apk/download/latest?{urlencode({'token': token, 'package_name': package_name})}"


def draw(out: Output, content: str) -> bool:
    """Print the code if the terminal is wide enough; return whether it was.

    A character shows two modules, one above the other; if the encoding has no block characters, two characters show one
    module.
    """
    code = segno.make_qr(content, error="l")
    compact = can_show(BLOCKS)
    width = code.symbol_size(border=QUIET)[0] * (1 if compact else 2)
    if out.is_terminal and width > out.console.width:
        return False
    if compact:
        drawn = io.StringIO()
        code.terminal(drawn, border=QUIET, compact=True)
        lines = drawn.getvalue().splitlines()
    else:
        lines = ["".join("  " if dark else "##" for dark in row) for row in code.matrix_iter(border=QUIET)]
    # Scanners need dark on light regardless of the terminal's colours, so a light # is printed on a light background.
    style = "bright_white on black"
    for line in lines:
        text = Text(line, style)
        text.highlight_regex("#+", "bright_white on bright_white")
        out.line(text)
    return True


def save(content: str, folder: Path, name: str) -> Path:
    """Write a PNG that only its owner can read, because the code contains a secret."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.png"
    file.unlink(missing_ok=True)  # an existing file could be readable by others
    with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as png:
        segno.make_qr(content, error="m").save(png, kind="png", scale=8, border=4)
    return file


def file_name(alias: str) -> str:
    """A file name that is unique per alias and never leaves its folder."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", alias)[:100]
    return f"enroll-{plain}" + ("" if plain == alias else f"-{hashlib.sha256(alias.encode()).hexdigest()[:8]}")


def _document(values: dict[str, str]) -> str:
    """Compact, because every byte makes the code larger; ASCII, because scanners guess any other encoding."""
    return json.dumps(values, separators=(",", ":"))
