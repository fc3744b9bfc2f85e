"""The archive, manifest and resource table of an APK are read as Android reads them, or refused.

`tests/system/extra/test_apk_differential.py` compares the same reading with Android's own tools.
"""

import struct
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from nexmdm.runtime.errors import BuildRefused

from functions.apk_builds import apk_entries, apk_file, apk_manifest, apk_resources
from functions.apk_builds.apk_manifest import Manifest
from tests.support import apk_mutations
from tests.support import apk_writer as write
from tests.support.apk_writer import (
    BOOLEAN,
    HEXADECIMAL,
    REFERENCE,
    STRING,
    Attribute,
    Document,
    File,
    Layout,
    Node,
    Resource,
)
from tests.support.builds import SAMPLES, sample

NAME, TABLE = b"AndroidManifest.xml", b"resources.arsc"
XML = write.xml(write.manifest())
PLAIN = File(NAME, XML)
NOISE = File(b"assets/noise.bin", bytes(range(256)))
GERMAN = struct.pack("<I", 28) + struct.pack("<HH2s", 0, 0, b"de") + bytes(18)


def read(content: bytes) -> Manifest:
    return apk_manifest.read(apk_file.parse(memoryview(content)))


def refusal(content: bytes) -> str:
    with pytest.raises(BuildRefused) as refused:
        read(content)
    return refused.value.detail


def archive(*files: File, **layout: object) -> bytes:
    return write.archive(files, Layout(**layout))  # type: ignore[arg-type]


def of(*roots: Node, **document: object) -> bytes:
    return archive(File(NAME, write.xml(*roots, document=Document(**document))))  # type: ignore[arg-type]


def having(part: object, **changes: object) -> None:
    for name, value in changes.items():
        setattr(part, name, value)


def changed(change: Callable[[Node], object], **document: object) -> bytes:
    """An APK whose manifest differs in one place."""
    root = write.manifest()
    change(root)
    return of(root, **document)


# --- files of Google's tools


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("agent-1", Manifest("com.nexmdm", 1, "1.0", min_sdk=24, target_sdk=33)),
        ("agent-2-debug", Manifest("com.nexmdm", 2, "2.0-debug", debuggable=True, min_sdk=24, target_sdk=33)),
        ("agent-2-all", Manifest("com.nexmdm", 2, "2.0", min_sdk=24, target_sdk=33)),
        ("player-190", Manifest("io.unitynodes.unityapp", 190, "1.9.0", min_sdk=24, target_sdk=33)),
        ("odd/refname", Manifest("com.example.odd", 7, "8.4.5", min_sdk=24, target_sdk=33)),
    ],
)
def test_files_of_aapt2_are_read(name: str, facts: Manifest):
    assert read(sample(name)) == facts


@pytest.mark.parametrize(
    "content",
    [
        archive(replace(PLAIN, method=8), NOISE),
        archive(NOISE, PLAIN),
        archive(PLAIN, NOISE, order=[1, 0]),
        archive(write.described(PLAIN), write.described(replace(NOISE, method=8), magic=False)),
        archive(PLAIN, replace(NOISE, before=write.virtual(30) + write.virtual(4000))),
        archive(PLAIN, replace(NOISE, local_extra=bytes(3), extra=write.extra(0x5455, bytes(5)))),
        archive(PLAIN, File("assets/ä.txt".encode(), b"x", flags=0x800), File(b"assets/", b"")),
        archive(PLAIN, padding=bytes(4095)),
        archive(PLAIN, File(b"META-INF/RSA.SF", b"x", before=bytes(691))),
        of(write.manifest(), utf8=True, flags=0x101),
        of(write.manifest(), namespace=False),
        changed(lambda root: root.children.append(Node("uses-permission", [Attribute("name", "x")], text="x"))),
        changed(lambda root: root.attributes.append(Attribute("versionCodeMajor", 0))),
        changed(lambda root: having(root.attributes[0], type=HEXADECIMAL)),
        changed(lambda root: having(root.attributes[0], raw="2")),
    ],
)
def test_usual_archives_and_manifests_are_read(content: bytes):
    assert read(content) == Manifest("com.nexmdm", 2, "2.0", min_sdk=24, target_sdk=33)


def test_manifest_without_uses_sdk_has_min_sdk_1():
    assert read(of(write.manifest(sdk=False))) == Manifest("com.nexmdm", 2, "2.0", min_sdk=1, target_sdk=1)


def test_characters_beyond_the_basic_plane_are_read():
    for utf8 in (True, False):
        assert read(of(write.manifest(name="1.0-😀"), utf8=utf8)).version_name == "1.0-😀"


# --- odd archives


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (archive(NOISE), "expected an AndroidManifest.xml, found none"),
        (archive(PLAIN, PLAIN), "'AndroidManifest.xml' twice"),
        (archive(PLAIN, NOISE, order=[0, 1, 1]), "'assets/noise.bin' twice"),
        (archive(PLAIN, comment=b"x"), "1 bytes after the end-of-central-directory record"),
        (archive(PLAIN, comment_size=1), "announces one of 1 bytes"),
        (archive(PLAIN, tail=b"PK\x05\x06" + bytes(18)), "central directory that ends where the end record begins"),
        (archive(PLAIN, prefix=b"#!/bin/sh\n"), "10 bytes before 'AndroidManifest.xml' that are in no entry"),
        (archive(PLAIN, replace(NOISE, before=b"x")), "1 bytes before 'assets/noise.bin'"),
        (archive(PLAIN, replace(NOISE, before=bytes(16))), "16 bytes before 'assets/noise.bin'"),
        (archive(PLAIN, File(b"META-INF/RSA.SF", b"x", before=b"x")), "1 bytes before 'META-INF/RSA.SF'"),
        (archive(PLAIN, File(b"x", b"x", listed=False), NOISE), "expected local headers that the central directory"),
        (archive(PLAIN, padding=bytes(4096)), "4096 bytes that are in no entry"),
        (archive(PLAIN, padding=b"x"), "1 bytes that are in no entry"),
        (archive(PLAIN, directory_tail=b"x"), "1 bytes more"),
        (archive(PLAIN, count=2), "expected 2 entries in the central directory, found 1"),
        (archive(PLAIN, NOISE, count=1), "62 bytes more"),
        (archive(PLAIN, disk=1), "found parts on disks 1 and 1"),
        (archive(PLAIN, disk=0xFFFF), "parts on disks 65535"),
        (archive(PLAIN, directory_tail=b"PK\x06\x07" + bytes(16)), "found ZIP64"),
        (archive(replace(PLAIN, size=0xFFFFFFFF)), "ZIP64 at b'AndroidManifest.xml'"),
        (archive(replace(PLAIN, disk=1)), "on disk 1"),
        (archive(replace(PLAIN, comment=b"x")), "has one of 1 bytes"),
        (archive(replace(PLAIN, flags=1)), "'AndroidManifest.xml' is encrypted"),
        (archive(replace(PLAIN, flags=0x40)), "is encrypted"),
        (archive(replace(PLAIN, flags=0x20)), "is flags 0x0020"),
        (archive(replace(PLAIN, flags=0x800, local_flags=0)), "in both headers of 'AndroidManifest.xml'"),
        (archive(replace(PLAIN, method=14)), "method 14 at 'AndroidManifest.xml'"),
        (archive(replace(PLAIN, method=8, local_method=0)), "in both headers"),
        (archive(replace(PLAIN, local_size=1)), "in both headers"),
        (archive(replace(PLAIN, local_compressed_size=1)), "in both headers"),
        (archive(replace(PLAIN, local_crc=0)), "in both headers"),
        (archive(replace(PLAIN, size=10)), "of 10 bytes stored in"),
        (archive(replace(PLAIN, crc=1)), "with the checksum 00000001"),
        (archive(replace(PLAIN, method=8, size=10)), "of exactly 10 bytes, found deflated data of another size"),
        (archive(replace(PLAIN, method=8, size=900_000)), "of exactly 900000 bytes"),
        (
            archive(replace(PLAIN, local_name=b"AndroidManifest.xmL")),
            "expected a local header of 'AndroidManifest.xml'",
        ),
        (archive(replace(PLAIN, offset_by=1)), "1 bytes before 'AndroidManifest.xml' that are in no entry"),
        (archive(NOISE, replace(PLAIN, offset_by=-300)), "'AndroidManifest.xml' begins inside the one before it"),
        (archive(write.described(PLAIN), NOISE).replace(b"PK\x07\x08", b"PK\x07\x09"), "a data descriptor after"),
        (archive(replace(write.described(PLAIN), descriptor=b"")), "a data descriptor after"),
        (archive(replace(PLAIN, local_extra=write.extra(0x7075, b"\1"))), "a Unicode path, which renames the entry"),
        (archive(replace(PLAIN, extra=write.extra(0x7075, b"\1"))), "a Unicode path, which renames the entry"),
        (archive(replace(PLAIN, extra=write.extra(1, bytes(8)))), "ZIP64 sizes"),
        (archive(replace(PLAIN, extra=write.extra(0x9901, bytes(7)))), "AES encryption"),
        (archive(replace(PLAIN, extra=write.extra(0x5455, b"12")[:-1])), "a broken one at b'AndroidManifest.xml'"),
        (archive(replace(PLAIN, local_extra=b"\1\0\0")), "a broken one"),
        *(
            (archive(PLAIN, File(name, b"x")), says)
            for name, says in [
                (b"androidmanifest.xml", "nothing that looks like AndroidManifest.xml"),
                (b"AndroidManifest.xml/", "nothing that looks like AndroidManifest.xml"),
                (b"AndroidManifest.xml/x", "nothing that looks like AndroidManifest.xml"),
                (b" AndroidManifest.xml", "nothing that looks like AndroidManifest.xml"),
                (b"AndroidManifest.xml\0.png", "without backslashes and control characters"),
                (b"res\\x", "without backslashes and control characters"),
                (b"a\nb", "without backslashes and control characters"),
                (b"", "without backslashes and control characters"),
                (b"/x", "without empty, . and .. parts"),
                (b"a//x", "without empty, . and .. parts"),
                (b"../x", "without empty, . and .. parts"),
                (b"./x", "without empty, . and .. parts"),
                (b"\xff", "names in UTF-8"),
            ]
        ),
        (sample("odd/unicodepath"), "a Unicode path, which renames the entry"),
    ],
)
def test_odd_archives_are_refused(content: bytes, says: str):
    assert says in refusal(content)


def test_overlapping_entries_are_refused():
    """Two names refer to the same bytes."""
    content = archive(PLAIN, NOISE)
    at = content.rfind(b"PK\x01\x02")
    twice = content[: at + 42] + bytes(4) + content[at + 46 :]
    assert "expected entries that do not overlap" in refusal(twice)


def test_decompression_bomb_is_not_unpacked():
    bomb = archive(File(NAME, bytes(50_000_000), method=8))
    assert len(bomb) < 200_000
    assert "AndroidManifest.xml of at most 4194304 bytes, found 50000000" in refusal(bomb)
    lies = archive(File(NAME, bytes(50_000_000), method=8, size=4_000_000))
    tracemalloc.start()
    try:
        assert "deflated data of another size" in refusal(lies)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


# --- limits


def many(count: int, name_size: int = 0) -> bytes:
    """An APK with `count` entries, written without apk_writer, which is too slow for so many."""
    manifest = archive(PLAIN, signed=False)
    start = struct.unpack_from("<I", manifest, len(manifest) - 6)[0]
    data, directory = bytearray(manifest[:start]), bytearray(manifest[start:-22])
    for number in range(count - 1):
        name = b"%06d" % number + b"x" * name_size
        sizes = struct.pack("<HHHHHIII", 20, 0, 0, 0, 0x21, 0, 0, 0)
        directory += b"PK\x01\x02\x14\0" + sizes + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, len(data)) + name
        data += b"PK\x03\x04" + sizes + struct.pack("<HH", len(name), 0) + name
    data += write.signing_block()
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count & 0xFFFF, count & 0xFFFF, len(directory), len(data), 0)
    return bytes(data + directory + end)


def peak(function: Callable[[], object]) -> int:
    """The largest number of bytes allocated at any time during the call."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_maximum_number_of_entries_is_read():
    assert read(many(65_535)) == read(archive(PLAIN))


def test_memory_for_entries_is_bounded():
    """Less than 60 MB for the maximum number of them."""
    content = many(16_384)
    assert peak(lambda: read(content)) < 60_000_000 * 16_384 / 65_535


def test_entries_beyond_the_count_of_the_end_record_are_not_read():
    """The end record counts in 16 bits: it says 37,856 for 300,000 entries, and the directory continues beyond them."""
    content = many(300_000)
    assert peak(lambda: refusal(content)) < 20_000_000
    assert "expected 37856 entries in the central directory and no more" in refusal(content)
    assert "expected 10 entries in the central directory and no more" in refusal(many(65_536 + 10))


def test_large_directory_is_refused_before_it_is_read():
    content = many(3_000, name_size=40_000)
    assert peak(lambda: refusal(content)) < 100_000
    assert "expected a central directory of at most 16777216 bytes" in refusal(content)


def test_manifest_with_too_many_chunks_is_refused():
    text = write.node_chunk(0x0104, struct.pack("<IHBBI", 0, 8, 0, 0, 0))
    root = write.xml(write.manifest())
    end = root.rfind(struct.pack("<HHI", 0x0103, 16, 24), 0, len(root) - 24)
    body = root[8:end] + text * 140_000 + root[end:]
    content = struct.pack("<HHI", 3, 8, 8 + len(body)) + body
    assert peak(lambda: read(archive(File(NAME, content, method=8)))) < 60_000_000
    deep = Node("x")
    for _ in range(150):
        deep = Node("x", [], [deep])
    assert "at most 100 elements inside each other" in refusal(changed(lambda root: root.children.append(deep)))


def test_table_that_claims_huge_counts_uses_little_memory():
    table = bytearray(write.table([Resource("1")]))
    table[8:12] = b"\xff" * 4
    content = archive(PLAIN, File(TABLE, bytes(table)))
    assert peak(lambda: refusal(content)) < 1_000_000


# --- odd manifests

SDK, APPLICATION = 0, 1
TEXT = write.text_chunk(0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            sample("odd/attrstart"),
            "attributes of 20 bytes that begin at 20, found attributes of 20 bytes that begin at 88",
        ),
        (changed(lambda root: having(root, decoys=[Attribute("versionCode", 9)])), "that begin at 40"),
        (changed(lambda root: having(root, attribute_size=24)), "attributes of 24 bytes"),
        (changed(lambda root: having(root, header_size=24)), "header 24"),
        (changed(lambda root: having(root, count_by=-1)), "an element of exactly 2 attributes"),
        (changed(lambda root: having(root, tail=bytes(20))), "an element of exactly 3 attributes"),
        (changed(lambda root: having(root, end_name="x")), "the end of the innermost element"),
        (changed(lambda root: having(root, namespace=write.ANDROID)), "<manifest> with one"),
        (changed(lambda root: root.attributes.append(Attribute("versionCode", 9))), "once each, sorted by resource id"),
        (
            changed(lambda root: root.attributes.append(Attribute("package", "x", None))),
            "once each, found a name twice",
        ),
        (
            changed(lambda root: (root.attributes.reverse(), having(root, sorted=False))),
            "attributes of <manifest> once each, sorted by resource id",
        ),
        (
            changed(lambda root: root.attributes.append(Attribute("versionCode", 9, "http://example.com"))),
            "once each, sorted",
        ),
        (
            changed(lambda root: having(root.attributes[0], namespace=None)),
            "versionCode under its own name, namespace and id",
        ),
        (
            changed(lambda root: root.attributes.append(Attribute("versionCode", 9, None))),
            "versionCode under its own name, namespace and id",
        ),
        (
            changed(lambda root: having(root.attributes[0], name="label")),
            "an android:versionCode of at least 1, found none",
        ),
        (
            changed(lambda root: (having(root.attributes[0], name="other"), having(root.attributes[0], id=0x0101021B))),
            "versionCode under its own name, namespace and id, found 'other'",
        ),
        (
            changed(lambda root: having(root.attributes[2], namespace=write.ANDROID)),
            "package under its own name, namespace and id",
        ),
        (
            changed(
                lambda root: root.children[APPLICATION].attributes.append(Attribute("debuggable", True, id=0x01010003))
            ),
            "debuggable under its own name, namespace and id",
        ),
        (of(write.manifest(), resource_map=False), "versionCode under its own name, namespace and id"),
        (
            changed(lambda root: having(root.attributes[0], type=STRING)),
            "expected a number, written out, as versionCode",
        ),
        (changed(lambda root: having(root.attributes[0], value="2")), "as versionCode, found the text '2'"),
        (
            changed(lambda root: having(root.attributes[0], type=REFERENCE)),
            "found a reference to the resource @00000002",
        ),
        (changed(lambda root: having(root.attributes[0], type=BOOLEAN)), "found a value of type 0x12"),
        (changed(lambda root: having(root.attributes[0], value=0)), "versionCode of at least 1, found 0"),
        (changed(lambda root: having(root.attributes[0], value=2**31)), "versionCode of at least 1, found -2147483648"),
        (changed(lambda root: having(root.attributes[0], size=12)), "a value of 8 bytes in versionCode"),
        (
            changed(lambda root: root.attributes.append(Attribute("versionCodeMajor", 1))),
            "found android:versionCodeMajor 1",
        ),
        (changed(lambda root: root.attributes.append(Attribute("versionCodeMajor", "1"))), "as versionCodeMajor"),
        (changed(lambda root: having(root.attributes[1], raw="9.9")), "one value of versionName in <manifest>"),
        (
            changed(lambda root: having(root.attributes[1], value=2)),
            "a text as versionName, found a value of type 0x10",
        ),
        (changed(lambda root: having(root.attributes[1], value="a\0b")), "whole and in UTF-16"),
        (changed(lambda root: having(root.attributes[1], value="a\nb")), "printable characters"),
        (changed(lambda root: having(root.attributes[1], value="\ud800")), "whole and in UTF-16"),
        (changed(lambda root: having(root.attributes[1], value="\ud800"), utf8=True), "whole and in UTF-8"),
        (changed(lambda root: root.attributes.pop(1)), "version_name: expected an android:versionName, found none"),
        (changed(lambda root: root.attributes.pop(2)), "expected a package name, found none"),
        (changed(lambda root: having(root.children[SDK].attributes[0], value="VanillaIceCream")), "as minSdkVersion"),
        (changed(lambda root: root.children.append(Node("uses-sdk"))), "one <uses-sdk> at most, found 2"),
        (changed(lambda root: root.children.append(Node("application"))), "one <application> at most, found 2"),
        (
            changed(lambda root: root.children[APPLICATION].children.append(Node("application"))),
            "<application> at the depth 2, found one at the depth 3",
        ),
        (changed(lambda root: root.children.append(Node("manifest"))), "<manifest> at the depth 1"),
        (
            changed(lambda root: root.children[APPLICATION].attributes.append(Attribute("debuggable", 1))),
            "true or false",
        ),
        (of(write.manifest(), write.manifest()), "expected one root element"),
        (of(Node("x", [], [write.manifest()])), "<manifest> at the depth 1"),
        (of(Node("x")), "a <manifest> at its root, found <x>"),
        (of(write.manifest(), after_end=bytes(8)), "a binary XML document that fills its file"),
        (of(write.manifest(), after_end=bytes(8), size_by=8), "expected whole chunks"),
        (of(write.manifest(), after_root=TEXT), "expected text inside the root element"),
        (of(write.manifest(), after_map=TEXT), "expected text inside the root element"),
        (of(write.manifest(), after_header=TEXT), "expected a string pool, found type 0x0104"),
        (of(write.manifest(), after_pool=write.string_pool(["x"])), "nodes of XML, found type 0x0001"),
        (of(write.manifest(), after_map=struct.pack("<HHI", 0x0180, 8, 8)), "nodes of XML, found type 0x0180"),
        (of(write.manifest(), after_root=write.node_chunk(0x0110, bytes(8))), "nodes of XML, found type 0x0110"),
        (
            of(write.manifest(), after_pool=struct.pack("<HHI", 0x0180, 8, 9008) + bytes(9000)),
            "one resource id for each",
        ),
        (of(write.manifest(), styles=1), "a string pool without styles"),
        (of(write.manifest(), flags=2), "a string pool in UTF-8 or UTF-16"),
        (of(write.manifest(), flags=0x100), "whole and in UTF-8"),
        (of(write.manifest(), size_by=4), "expected whole chunks"),
        (archive(File(NAME, b"")), "expected whole chunks"),
        (archive(File(NAME, b"<manifest/>")), "expected whole chunks"),
        (archive(File(NAME, b"\x03\0\x08\0\x08\0\0\0")), "expected a string pool first"),
    ],
)
def test_odd_manifests_are_refused(content: bytes, says: str):
    assert says in refusal(content)


def test_every_truncated_manifest_is_refused():
    for size in range(0, len(XML), 3):
        refusal(archive(File(NAME, XML[:size])))


# --- references


def referring(*resources: Resource, id_: int = 0x7F010000, **table: int) -> bytes:
    root = write.manifest()
    root.attributes[1].type, root.attributes[1].data = REFERENCE, id_
    return archive(File(NAME, write.xml(root)), File(TABLE, write.table(resources, **table)))


@pytest.mark.parametrize(
    "content",
    [
        referring(Resource("8.4.5")),
        referring(Resource("8.4.5", layout="sparse")),
        referring(Resource("8.4.5", flags=2)),
        referring(Resource("8.4.5"), spec_flags=0x40000000),
        referring(Resource(0x7F010001, type=REFERENCE), Resource("8.4.5", entry=1)),
        referring(Resource("8.4.5"), Resource("x", entry=1), Resource("y", entry=1, configuration=GERMAN)),
    ],
)
def test_version_name_reference_is_resolved(content: bytes):
    assert read(content).version_name == "8.4.5"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            referring(Resource("8"), Resource("9", configuration=GERMAN)),
            "whatever the phone's language or screen, found 2",
        ),
        (referring(Resource("8", configuration=GERMAN)), "whatever the phone's language or screen, found 1"),
        (referring(Resource("8"), spec_flags=4), "whatever the phone's language or screen"),
        (referring(Resource("8", layout="compact")), "or a compact entry"),
        (referring(Resource("8", layout="offsets16")), "16-bit offsets, which no Android before 14 reads"),
        (referring(Resource("8", flags=1)), "a style, an array"),
        (referring(Resource(5)), "a text as versionName, found a value of type 0x10"),
        (referring(Resource(0x7F010000, type=REFERENCE)), "at most 20 references to references"),
        (referring(Resource(0x01040000, type=REFERENCE)), "one of the phone's"),
        (referring(Resource("8"), id_=0x7F010001), "one resource @7f010001"),
        (referring(Resource("8"), id_=0x7F020000), "one resource @7f020000"),
        (referring(Resource("8"), id_=0x7E010000), "one package of @7e010000, found 0"),
        (referring(Resource("8"), packages=2), "one package of @7f010000, found 2"),
        (changed(lambda root: having(root.attributes[1], type=REFERENCE)), "a resources.arsc for @"),
    ],
)
def test_unresolvable_version_name_is_refused(content: bytes, says: str):
    assert says in refusal(content)


@pytest.mark.parametrize("at", [0, 2, 4, 8, 12, 14, 16, 20])
def test_broken_resource_table_is_refused(at: int):
    """Refused although nothing refers to the table, because no phone installs such a file."""
    table = bytearray(write.table([Resource("8.4.5")]))
    table[at : at + 2] = b"\xfd\xff"
    assert "resources.arsc: expected" in refusal(archive(PLAIN, File(TABLE, bytes(table))))


# --- files that phones refuse


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (sample("odd/split"), "a part of an app (split): phones do not install it alone"),
        (sample("odd/testonly"), 'android:testOnly="true": phones refuse to install it'),
        (changed(lambda root: root.attributes.append(Attribute("isSplitRequired", True))), "isSplitRequired"),
        (changed(lambda root: root.attributes.append(Attribute("isFeatureSplit", True))), "isFeatureSplit"),
        (
            changed(lambda root: root.attributes.append(Attribute("requiredSplitTypes", "base__abi"))),
            "requiredSplitTypes",
        ),
        (changed(lambda root: root.attributes.append(Attribute("configForSplit", "x", None))), "configForSplit"),
        (
            changed(lambda root: root.children[APPLICATION].attributes.append(Attribute("isSplitRequired", True))),
            "isSplitRequired",
        ),
    ],
)
def test_apk_that_phones_refuse_is_refused(content: bytes, says: str):
    assert says in refusal(content)


def test_resource_table_must_be_stored_and_aligned_for_android_11():
    table = File(TABLE, write.table([Resource("1")]))
    assert "one that is compressed, with target SDK 33" in refusal(archive(PLAIN, replace(table, method=8)))
    assert "run zipalign" in refusal(archive(PLAIN, replace(table, local_extra=bytes(3))))
    root = write.manifest()
    root.children[SDK].attributes[1].value = 29
    older = File(NAME, write.xml(root))
    assert read(archive(older, replace(table, method=8))).target_sdk == 29


def test_false_attributes_are_accepted():
    root = write.manifest()
    root.children[APPLICATION].attributes += [Attribute("testOnly", False), Attribute("debuggable", False)]
    root.attributes += [Attribute("isSplitRequired", False), Attribute("requiredSplitTypes", "")]
    assert read(of(root)).needs_splits == ()


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(apk_mutations.apks())
def test_any_mutated_apk_is_read_or_refused(mutation: tuple[str, bytes]):
    _, content = mutation
    manifest: Manifest | None = None
    said = ""
    try:
        manifest = read(content)
    except BuildRefused as refused:
        said = refused.detail
    if manifest is None:
        assert said.isprintable(), "the message contains control characters of the file"
        return
    assert manifest.package_name
    assert manifest.version_code >= 1


def test_archive_is_read_without_zipfile(monkeypatch: pytest.MonkeyPatch):
    """From 3.13 on, Python's own zipfile renames entries by the extra field 0x7075, so it is not used."""
    import zipfile

    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert read((SAMPLES / "agent-1.apk").read_bytes()).version_code == 1
    assert "zipfile" not in vars(sys.modules[apk_entries.__name__]) | vars(sys.modules[apk_resources.__name__])
