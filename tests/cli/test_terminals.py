"""Output on terminals of every encoding, and that nothing is lost when one lacks a character."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nexmdm_cli.output import Output
from nexmdm_cli.qr import BLOCKS

from tests.support.codes import decoded

PROGRAM = Path(sys.executable).with_name("nexmdm")
ALIAS = "Zürich 東京 👩\u200d🚒…"
ENCODINGS = ["ascii", "cp1252", "latin-1", "utf-8"]


def process(*arguments: str, data: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, **environment}
    return subprocess.run([PROGRAM, *arguments], env=env, input=data, capture_output=True, check=False)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_enroll_create_shows_the_token_in_every_encoding(operator, encoding):
    ended = process("enroll", "create", ALIAS, PYTHONIOENCODING=encoding)
    assert ended.returncode == 0, ended.stderr
    assert b"--es admin_key " in ended.stdout
    ended.stdout.decode(encoding)


LISTS_AND_HELP = [("devices", "list"), ("enroll", "list"), ("status",), ("--help",), ("send", "--help")]


# Each is a process of its own. All go through one `Output`, so only the first is tried in every encoding.
@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [*((encoding, LISTS_AND_HELP[0]) for encoding in ENCODINGS), *(("ascii", each) for each in LISTS_AND_HELP[1:])],
)
def test_lists_and_help_are_shown_in_every_encoding(operator, stack, encoding, arguments):
    stack.enroll(f"Ωmega {encoding}")
    ended = process(*arguments, PYTHONIOENCODING=encoding)
    assert b"Traceback" not in ended.stderr
    assert ended.returncode in (0, 1)
    assert ended.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", [*ENCODINGS, "utf-16"])
def test_json_is_utf_8_in_every_encoding(operator, encoding):
    ended = process("enroll", "create", ALIAS, "--json", PYTHONIOENCODING=encoding)
    assert ended.returncode == 0, ended.stderr
    text = ended.stdout.decode("utf-8")
    assert json.loads(text)["items"][0]["alias"] == ALIAS
    assert ALIAS in text


@pytest.mark.parametrize("point", [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x202E, 0x2066, 0xD800, 0xDFFF, 0xE0001])
@pytest.mark.parametrize("many", [False, True], ids=["one", "stream"])
def test_json_escapes_terminal_control_characters(capfdbinary, point, many):
    value = {"alias": f"a{chr(point)}b"}
    out = Output(as_json=True)
    out.stream(value) if many else out.json(value)
    written = capfdbinary.readouterr().out.decode("utf-8")
    assert json.loads(written) == value
    assert all(c.isprintable() for c in written.replace("\n", ""))


def test_arguments_are_utf_8_in_the_c_locale(operator):
    """In the C locale, Python reads arguments as ASCII and hides other bytes in surrogates."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = process("enroll", "create", "Zürich", "--json", **plain)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["items"][0]["alias"] == "Zürich"
    other = process("enroll", "create", b"Z\xfcrich", **plain)
    assert (other.returncode, other.stdout) == (2, b"")
    assert other.stderr == b"error: The command line is not valid UTF-8.\n"


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16"])
def test_body_is_read_in_the_encoding_of_its_mark(operator, mark):
    body = '{"aliases": ["Zürich"]}'.encode(mark)
    ended = process("api", "POST", "/v1/enroll-tokens", "-d", "@-", data=body, PYTHONIOENCODING="cp1252")
    assert json.loads(ended.stdout)["items"][0]["alias"] == "Zürich"


def test_code_without_block_characters_is_drawn_two_characters_wide(operator):
    from PIL import Image

    ended = process("enroll", "create", "lobby", "--server-url", "https://mdm.example", PYTHONIOENCODING="ascii")
    lines = [line for line in ended.stdout.decode().splitlines() if len(line) > 40 and set(line) <= {"#", " "}]
    image = Image.new("L", (len(lines[0]) // 2, len(lines)), 255)
    for y, line in enumerate(lines):
        for x in range(image.width):
            image.putpixel((x, y), 255 if line[2 * x] == "#" else 0)
    found = decoded(image.resize((image.width * 4, image.height * 4), Image.Resampling.NEAREST))
    assert found["alias"] == "lobby"
    assert not any(block in ended.stdout.decode() for block in BLOCKS)


def test_uncreatable_png_folder_creates_no_token(operator):
    (operator / "file").touch()
    before = json.loads(process("enroll", "list", "--json").stdout)
    ended = process("enroll", "create", "lobby", "--png", "file/codes")
    assert ended.returncode == 2
    assert b"--png" in ended.stderr
    assert json.loads(process("enroll", "list", "--json").stdout) == before


def test_unwritable_png_loses_no_token(operator):
    (operator / "codes" / "enroll-lobby.png").mkdir(parents=True)
    ended = process("enroll", "create", "lobby", "--png", "codes", "--json")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["items"][0]["token"]
