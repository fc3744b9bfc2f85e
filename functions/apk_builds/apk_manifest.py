"""The binary manifest inside an APK, as Android reads it: attributes by resource id, not by the name beside it.

pyaxmlparser (androguard's parser, packaged by Debian and Arch) reads the binary XML. It is lenient, for malware's sake;
so whatever it cannot read, and whatever is given twice or indirectly, is refused. It runs only after the signature of
the file was verified.
"""

import zipfile
from typing import IO, Any, NamedTuple

from nexmdm.runtime.errors import BuildRefused
from pyaxmlparser import constants
from pyaxmlparser.axmlparser import AXMLParser

NAME = "AndroidManifest.xml"
MAX_BYTES = 4 * 1024 * 1024
MOST_TAGS = 100_000

_VERSION_CODE, _VERSION_NAME = 0x0101021B, 0x0101021C
_VERSION_CODE_MAJOR, _DEBUGGABLE = 0x01010576, 0x0101000F
_STRING, _INTEGERS, _BOOLEAN = 0x03, (0x10, 0x11), 0x12


class Manifest(NamedTuple):
    """version_name is None when it is not written out, but refers to a resource."""

    package_name: str
    version_code: int
    version_name: str | None
    debuggable: bool


class _Value(NamedTuple):
    type: int
    data: int
    text: str


def read(apk: IO[bytes]) -> Manifest:
    """The facts of an APK's manifest.

    Raises:
        BuildRefused: there is none, or it cannot be read without doubt.
    """
    content = _content(apk)
    try:
        tags = _tags(content)
    except BuildRefused:
        raise
    except Exception as error:
        # The parser raises whatever the bytes lead it into.
        raise _unreadable(type(error).__name__) from None
    if not tags or tags[0][:2] != (1, "manifest"):
        raise _unreadable("no <manifest> at its root")
    return _facts(tags)


def _content(apk: IO[bytes]) -> bytes:
    try:
        with zipfile.ZipFile(apk) as archive:
            found = [entry for entry in archive.infolist() if entry.filename == NAME]
            if len(found) != 1:
                raise BuildRefused("manifest", f"one {NAME}", str(len(found)))
            if found[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BuildRefused("manifest", "an entry stored or deflated", f"method {found[0].compress_type}")
            with archive.open(found[0]) as entry:
                # Not what the entry says of its size: what comes out of it.
                content = entry.read(MAX_BYTES + 1)
    except BuildRefused:
        raise
    except Exception as error:
        # zipfile too: BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError (encrypted), struct.error.
        raise BuildRefused("zip", f"an archive with a readable {NAME}", type(error).__name__) from None
    if len(content) > MAX_BYTES:
        raise BuildRefused("manifest", f"at most {MAX_BYTES} bytes", "more")
    return content


def _tags(content: bytes) -> list[tuple[int, str, dict[int | str, _Value]]]:
    """(depth, name, attributes) of the manifest's elements down to <application>."""
    parser = AXMLParser(content)
    tags, depth = [], 0
    for _ in range(MOST_TAGS):
        event = next(parser)
        if not parser.is_valid():
            raise _unreadable("a broken chunk")
        if event == constants.START_TAG:
            depth += 1
            if depth <= 2:
                tags.append((depth, parser.name, _attributes(parser)))
        elif event == constants.END_TAG:
            depth -= 1
        elif event == constants.END_DOCUMENT:
            return tags
    raise _unreadable(f"more than {MOST_TAGS} tags")


def _attributes(parser: Any) -> dict[int | str, _Value]:
    """By resource id, or by name for those without a namespace."""
    found: dict[int | str, _Value] = {}
    for n in range(parser.getAttributeCount()):
        at = n * constants.ATTRIBUTE_LENGHT
        name = parser.m_attributes[at + constants.ATTRIBUTE_IX_NAME]
        # Android's own names have an id; `package` and the like have none.
        key = parser.m_resourceIDs[name] if name < len(parser.m_resourceIDs) else parser.getAttributeName(n)
        if key in found:
            raise _unreadable(f"an attribute given twice: {key if isinstance(key, str) else hex(key)}")
        kind, data = parser.getAttributeValueType(n), parser.getAttributeValueData(n)
        found[key] = _Value(kind, data, parser.sb[data] if kind == _STRING else "")
    return found


def _facts(tags: list[tuple[int, str, dict[int | str, _Value]]]) -> Manifest:
    root = tags[0][2]
    applications = [attributes for depth, name, attributes in tags if (depth, name) == (2, "application")]
    package, code, major = root.get("package"), root.get(_VERSION_CODE), root.get(_VERSION_CODE_MAJOR)
    if package is None or package.type != _STRING:
        raise _unreadable("no package name")
    if code is None or code.type not in _INTEGERS:
        raise _unreadable("no versionCode that is a number")
    if major is not None and (major.type not in _INTEGERS or major.data != 0):
        raise BuildRefused("manifest", "a version code of 32 bits", "versionCodeMajor")
    name = root.get(_VERSION_NAME)
    return Manifest(
        package_name=package.text,
        version_code=code.data,
        version_name=name.text if name is not None and name.type == _STRING else None,
        debuggable=any(_is_true(attributes.get(_DEBUGGABLE)) for attributes in applications),
    )


def _is_true(value: _Value | None) -> bool:
    if value is not None and value.type != _BOOLEAN:
        raise _unreadable("android:debuggable that is neither true nor false")
    return value is not None and value.data != 0


def _unreadable(found: str) -> BuildRefused:
    return BuildRefused("manifest", "a binary AndroidManifest.xml that can be read", found)
