"""Generate mutated APKs with hypothesis: one to three oddities in the archive, the manifest or the resource table."""

import struct
from collections.abc import Callable
from dataclasses import replace

from hypothesis import strategies as st

from tests.support import apk_writer as write
from tests.support.apk_writer import (
    BOOLEAN,
    HEXADECIMAL,
    INTEGER,
    REFERENCE,
    STRING,
    Attribute,
    Document,
    File,
    Layout,
    Node,
    Resource,
)

MANIFEST, TABLE = b"AndroidManifest.xml", b"resources.arsc"
OTHER = write.xml(write.manifest("com.example.other", 2147483647, "9.9"))

Draw = st.DrawFn


class Parts:
    """An APK before it is written; mutations change it."""

    def __init__(self) -> None:
        self.roots = [write.manifest()]
        self.document = Document()
        self.resources = [Resource("8.4.5"), Resource("another", entry=1)]
        self.spec_flags = 0
        self.files = [File(MANIFEST, b""), File(TABLE, b""), File(b"assets/noise.bin", bytes(range(256)) * 4)]
        self.layout = Layout()
        self.whole: list[Callable[[bytes], bytes]] = []

    @property
    def root(self) -> Node:
        return self.roots[0]

    @property
    def file(self) -> File:
        return next(file for file in self.files if file.name == MANIFEST)

    def written(self) -> bytes:
        for file in self.files:
            if file.name == MANIFEST and not file.content:
                file.content = write.xml(*self.roots, document=self.document)
            if file.name == TABLE and not file.content:
                file.content = write.table(self.resources, spec_flags=self.spec_flags)
        data = write.archive(self.files, self.layout)
        for change in self.whole:
            data = change(data)
        return data


# --- mutations of the archive


def _swap_entries(parts: Parts, draw: Draw) -> None:
    parts.files = list(draw(st.permutations(parts.files)))


def _directory_in_another_order(parts: Parts, draw: Draw) -> None:
    numbers = range(len(parts.files))
    parts.layout.order = draw(st.permutations(numbers) | st.lists(st.sampled_from(numbers), min_size=1, max_size=5))


def _second_manifest(parts: Parts, draw: Draw) -> None:
    name = draw(
        st.sampled_from(
            [
                *(
                    MANIFEST,
                    b"androidmanifest.xml",
                    MANIFEST + b"/",
                    MANIFEST + b"\0",
                    b"./" + MANIFEST,
                    b"/" + MANIFEST,
                ),
                *(MANIFEST + b"/x", b"assets\\" + MANIFEST, b" " + MANIFEST, b"res/../" + MANIFEST, b"x/" + MANIFEST),
            ]
        )
    )
    other = File(name, OTHER, method=draw(st.sampled_from([0, 8])), listed=draw(st.booleans()))
    parts.files.insert(draw(st.integers(0, len(parts.files))), other)


def _odd_extra(parts: Parts, draw: Draw) -> None:
    file = draw(st.sampled_from(parts.files))
    path = b"\x01" + struct.pack("<I", 0) + draw(st.sampled_from([MANIFEST, b"assets/x"]))
    contents = st.sampled_from([path, b"", bytes(8), bytes(24)]) | st.binary(max_size=12)
    id_ = draw(st.sampled_from([0x7075, 0x6375, 0x0001, 0x0017, 0x9901, 0xCAFE, 0x5455, 0xD935, 0]))
    extra = write.extra(id_, draw(contents))
    extra = draw(st.sampled_from([extra, extra[:-1], extra + b"\0\0\0", extra + b"\1"]))
    if draw(st.booleans()):
        file.extra = extra
    else:
        file.local_extra = extra


def _flags(parts: Parts, draw: Draw) -> None:
    file = draw(st.sampled_from(parts.files))
    file.flags = draw(st.sampled_from([0x1, 0x2, 0x6, 0x8, 0x20, 0x40, 0x800, 0x2000]))
    if draw(st.booleans()):
        file.local_flags = draw(st.sampled_from([0, 0x1, 0x8, 0x800]))


def _method(parts: Parts, draw: Draw) -> None:
    file = draw(st.sampled_from(parts.files))
    file.method = draw(st.sampled_from([0, 8, 8, 8, 9, 12, 14, 99]))
    if draw(st.booleans()):
        file.local_method = draw(st.sampled_from([0, 8, 14]))


def _sizes(parts: Parts, draw: Draw) -> None:
    file = draw(st.sampled_from(parts.files))
    names = ["size", "compressed_size", "crc"]
    name = draw(st.sampled_from([*names, *(f"local_{name}" for name in names)]))
    setattr(file, name, draw(st.sampled_from([0, 1, 100, 4096, 0xFFFFFFFF])))


def _local_name(parts: Parts, draw: Draw) -> None:
    file = draw(st.sampled_from(parts.files))
    file.local_name = draw(st.sampled_from([b"", b"x", MANIFEST, file.name[:-1] + b"\0", file.name + b"/"]))


def _offsets(parts: Parts, draw: Draw) -> None:
    draw(st.sampled_from(parts.files)).offset_by = draw(st.sampled_from([-30, -4, -1, 1, 4, 30, 64, 1000, 5000]))


def _gaps(parts: Parts, draw: Draw) -> None:
    file = draw(st.sampled_from(parts.files))
    odd = st.binary(min_size=1, max_size=40) | st.sampled_from(
        [bytes(7), bytes(64), write.virtual(30), write.virtual(99)]
    )
    if draw(st.booleans()):
        file.before = draw(odd)
    else:
        file.after = draw(odd)


def _prefix(parts: Parts, draw: Draw) -> None:
    parts.layout.prefix = draw(
        st.sampled_from([b"#!/bin/sh\n", b"dex\n035\0", write.virtual(64), bytes(16), b"PK\3\4"])
    )


def _padding(parts: Parts, draw: Draw) -> None:
    parts.layout.padding = draw(st.sampled_from([bytes(1), bytes(4095), bytes(4096), b"x", b"PK\x01\x02" + bytes(42)]))


def _descriptor(parts: Parts, draw: Draw) -> None:
    number = draw(st.integers(0, len(parts.files) - 1))
    file = write.described(parts.files[number], magic=draw(st.booleans()))
    if draw(st.booleans()):
        file.descriptor = draw(st.sampled_from([b"", bytes(12), bytes(16), b"PK\x07\x08" + bytes(12)]))
    parts.files[number] = file


def _end_record(parts: Parts, draw: Draw) -> None:
    layout = parts.layout
    kind = draw(st.integers(0, 5))
    if kind == 0:
        layout.comment = draw(st.sampled_from([b"x", b"PK\x05\x06", bytes(22), b"PK\x05\x06" + bytes(18)]))
    elif kind == 1:
        layout.tail = draw(st.sampled_from([b"x", bytes(22), b"PK\x05\x06" + bytes(18)]))
    elif kind == 2:
        layout.count = draw(st.integers(0, 6) | st.just(0xFFFF))
    elif kind == 3:
        layout.comment_size = draw(st.integers(1, 40))
    elif kind == 4:
        layout.directory_tail = draw(st.sampled_from([b"x", bytes(46), b"PK\x05\x05\0\0", b"PK\x06\x07" + bytes(16)]))
    else:
        layout.disk = draw(st.sampled_from([1, 0xFFFF]))


def _two_end_records(parts: Parts, draw: Draw) -> None:
    """Add the central directory and end record of another APK, before or behind the APK's own."""
    other = write.archive([File(MANIFEST, OTHER)])
    parts.whole.append(draw(st.sampled_from([lambda data: data + data[-22:], lambda data: other + data])))
    if draw(st.booleans()):
        parts.whole.append(lambda data: data + other)


def _entry_comment(parts: Parts, draw: Draw) -> None:
    draw(st.sampled_from(parts.files)).comment = draw(st.sampled_from([b"x", b"PK\x05\x06" + bytes(18)]))


def _names(parts: Parts, draw: Draw) -> None:
    names = [
        b"assets/noise.bin\0.png",
        b"a\\b",
        b"/a",
        b"../a",
        b"a//b",
        b"",
        b"\xff\xfe",
        "ä/ö".encode(),
        b"a/",
        b"./a",
    ]
    parts.files.append(File(draw(st.sampled_from(names) | st.binary(max_size=8)), b"x"))


def _bytes(parts: Parts, draw: Draw) -> None:
    """Change a few bytes, either anywhere or where the archive's own numbers are."""
    places, value = draw(st.integers(0, 10_000)), draw(st.binary(min_size=1, max_size=4))
    from_the_end = draw(st.booleans())

    def change(data: bytes) -> bytes:
        at = len(data) - 1 - places % 250 if from_the_end else places % len(data)
        return data[:at] + value + data[at + len(value) :]

    parts.whole.append(change)


# --- mutations of the manifest


VALUES = (
    st.sampled_from(["3", "9.9", "com.example.other", "@string/v", "", "ä", "x\0y", "a\nb", "'", "\\"])
    | st.integers(0, 9)
    | st.booleans()
)
READ = sorted(write.IDS)


def attributes(draw: Draw) -> Attribute:
    """A decoy for an attribute that the parser reads: correct, or wrong in its name, id, namespace or type."""
    name = draw(st.sampled_from([*READ, "package", "split", "configForSplit", "coreApp"]))
    namespace = draw(st.sampled_from([write.ANDROID, None, "http://schemas.android.com/apk/res-auto"]))
    id_ = draw(st.sampled_from([None, 0, *write.IDS.values()]))
    attribute = Attribute(name, draw(VALUES), namespace, id_)
    if draw(st.integers(0, 3)) == 0:
        attribute.type = draw(st.sampled_from([0, REFERENCE, 2, STRING, 4, 5, 7, INTEGER, HEXADECIMAL, BOOLEAN]))
        attribute.data = draw(st.sampled_from([0, 1, 3, 0x7F010000, 0x7F010001, 0x01040000, 0xFFFFFFFF]))
    if draw(st.integers(0, 3)) == 0:
        attribute.raw = draw(st.sampled_from(["3", "com.example.other", ""]))
    return attribute


def _a_node(parts: Parts, draw: Draw) -> Node:
    return draw(st.sampled_from([parts.root, *parts.root.children]))


def _more_attributes(parts: Parts, draw: Draw) -> None:
    node = _a_node(parts, draw)
    node.attributes.insert(draw(st.integers(0, len(node.attributes))), attributes(draw))


def _legal_attribute(parts: Parts, draw: Draw) -> None:
    """An attribute as the linker would write it, with any value. It must be read unchanged or refused."""
    name = draw(st.sampled_from(READ))
    _a_node(parts, draw).attributes.append(Attribute(name, draw(VALUES)))


def _decoys(parts: Parts, draw: Draw) -> None:
    node = _a_node(parts, draw)
    node.decoys = [replace(attribute) for attribute in node.attributes]
    for attribute in node.decoys:
        attribute.value = draw(VALUES)


def _unsorted(parts: Parts, draw: Draw) -> None:
    node = _a_node(parts, draw)
    node.sorted = False
    node.attributes = list(draw(st.permutations(node.attributes)))


def _twice(parts: Parts, draw: Draw) -> None:
    node = _a_node(parts, draw)
    if node.attributes:
        node.attributes.append(replace(draw(st.sampled_from(node.attributes)), value=draw(VALUES)))


def _values(parts: Parts, draw: Draw) -> None:
    node = _a_node(parts, draw)
    if not node.attributes:
        return
    attribute = draw(st.sampled_from(node.attributes))
    attribute.type = draw(st.sampled_from([None, 0, REFERENCE, 2, STRING, 4, 7, INTEGER, HEXADECIMAL, BOOLEAN]))
    attribute.data = draw(st.sampled_from([None, 0, 1, 9, 24, 0x7F010000, 0x7F010001, 0x7F020000, 0x01040000, 2**31]))
    attribute.size = draw(st.sampled_from([8, 8, 8, 0, 12]))
    if draw(st.booleans()):
        attribute.raw = draw(st.sampled_from([None, "3", "other"]))


def _reference(parts: Parts, draw: Draw) -> None:
    """Give the version name as a reference to a resource table that may be odd."""
    id_ = draw(st.sampled_from([0x7F010000, 0x7F010000, 0x7F010001, 0x7F010002]))
    for attribute in parts.root.attributes:
        if attribute.name == "versionName":
            attribute.type, attribute.data = REFERENCE, id_
    german = struct.pack("<I", 28) + struct.pack("<HH2s", 0, 0, b"de") + bytes(18)
    kinds = ["plain", "plain", "sparse", "offsets16", "compact"]
    parts.resources[0].layout = draw(st.sampled_from(kinds))
    if draw(st.booleans()):
        more = Resource(
            draw(st.sampled_from(["8.4.5", "9", 3])), configuration=draw(st.sampled_from([german, bytes(0)]))
        )
        more.configuration = more.configuration or parts.resources[0].configuration
        parts.resources.insert(draw(st.integers(0, 2)), more)
    if draw(st.integers(0, 3)) == 0:
        parts.resources[0] = Resource(0x7F010001, type=REFERENCE)
    parts.spec_flags = draw(st.sampled_from([0, 0, 4, 0x40000000]))


def _more_elements(parts: Parts, draw: Draw) -> None:
    sdk = [
        Attribute("minSdkVersion", draw(st.integers(1, 40))),
        Attribute("targetSdkVersion", draw(st.integers(1, 40))),
    ]
    kinds = [
        Node("uses-sdk", sdk),
        Node("application", [Attribute("debuggable", True)]),
        Node("application", [Attribute("testOnly", True)]),
        Node("manifest", [Attribute("versionCode", 9)]),
        Node("instrumentation", [Attribute("name", "x")], [Node("application", [Attribute("debuggable", True)])]),
    ]
    node = draw(st.sampled_from(kinds))
    where = draw(st.sampled_from([parts.root.children, *[child.children for child in parts.root.children]]))
    where.insert(draw(st.integers(0, len(where))), node)


def _roots(parts: Parts, draw: Draw) -> None:
    other = write.manifest("com.example.other", 9, "9.9")
    parts.roots = draw(st.sampled_from([[parts.root, other], [other, parts.root], [Node("x", [], [parts.root])], []]))
    parts.roots = parts.roots or [Node("x")]


def _node_shape(parts: Parts, draw: Draw) -> None:
    node = _a_node(parts, draw)
    kind = draw(st.integers(0, 6))
    if kind == 0:
        node.attribute_size = draw(st.sampled_from([16, 24, 40]))
    elif kind == 1:
        node.header_size = draw(st.sampled_from([20, 24, 36]))
    elif kind == 2:
        node.count_by = draw(st.sampled_from([-1, 1, 100]))
    elif kind == 3:
        node.end_name = draw(st.sampled_from(["other", "manifest", "application"]))
    elif kind == 4:
        node.tail = draw(st.sampled_from([bytes(4), bytes(20), b"xyz"]))
    elif kind == 5:
        node.text = draw(st.sampled_from(["", "text"]))
    else:
        node.namespace = write.ANDROID


def _document(parts: Parts, draw: Draw) -> None:
    document = parts.document
    kind = draw(st.integers(0, 9))
    chunk = draw(
        st.sampled_from(
            [
                write.node_chunk(0x0104, struct.pack("<IHBBI", 0, 8, 0, 0, 0)),
                write.node_chunk(0x0110, bytes(8)),
                write.string_pool(["x", "y", "z"] * 9),
                struct.pack("<HHI", 0x0180, 8, 12) + struct.pack("<I", write.IDS["versionCode"]),
                struct.pack("<HHI", 0x0000, 8, 8),
                struct.pack("<HHI", 0x0102, 16, 4),
                bytes(4),
                bytes(16),
            ]
        )
    )
    if kind == 0:
        document.utf8 = True
    elif kind <= 5:
        name = ["after_header", "after_pool", "after_map", "after_root", "after_end"][kind - 1]
        setattr(document, name, chunk)
    elif kind == 6:
        document.size_by = draw(st.sampled_from([-4, 4, -1, 1000]))
    elif kind == 7:
        document.resource_map = False
    elif kind == 8:
        document.flags = draw(st.sampled_from([0x100, 0x1, 0x101, 0x2, 0]))
    else:
        document.styles = draw(st.integers(1, 3))


def _manifest_bytes(parts: Parts, draw: Draw) -> None:
    """Replace four bytes of the manifest; sizes and checksums stay correct."""
    content = bytearray(write.xml(*parts.roots, document=parts.document))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content) // 4 - 1)) * 4
        value = draw(st.integers(0, 40) | st.sampled_from([0xFFFFFFFF, 0x80000000, 0x10, *write.IDS.values()]))
        content[at : at + 4] = struct.pack("<I", value)
    parts.file.content = bytes(content)


def _table_bytes(parts: Parts, draw: Draw) -> None:
    """Replace four bytes of the resource table, or of the version name's string."""
    if draw(st.booleans()):
        _reference(parts, draw)
    content = bytearray(write.table(parts.resources, spec_flags=parts.spec_flags, utf8=draw(st.booleans())))
    at = draw(st.integers(0, len(content) // 4 - 1)) * 4
    content[at : at + 4] = struct.pack(
        "<I", draw(st.integers(0, 40) | st.sampled_from([0xFFFFFFFF, 0x80000000, 0x101]))
    )
    for file in parts.files:
        if file.name == TABLE:
            file.content = bytes(content)


KINDS: list[Callable[[Parts, Draw], None]] = [
    _swap_entries, _directory_in_another_order, _second_manifest, _odd_extra, _flags, _method, _sizes, _local_name,
    _offsets, _gaps, _prefix, _padding, _descriptor, _end_record, _two_end_records, _entry_comment, _names, _bytes,
    _more_attributes, _more_attributes, _legal_attribute, _decoys, _unsorted, _twice, _values, _values, _reference,
    _more_elements, _roots, _node_shape, _document, _document, _manifest_bytes, _manifest_bytes,
    _table_bytes, _table_bytes,
]  # fmt: skip


@st.composite
def apks(draw: Draw) -> tuple[str, bytes]:
    """An APK, with the names of the mutations that were applied to it."""
    parts = Parts()
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=draw(st.sampled_from([1, 1, 2, 3]))))
    for kind in kinds:
        kind(parts, draw)
    return " ".join(kind.__name__[1:] for kind in kinds), parts.written()
