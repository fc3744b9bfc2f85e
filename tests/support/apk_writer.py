"""Write APKs byte by byte, both well-formed ones (as aapt2 and zipalign do) and malformed ones.

archive([File(b"AndroidManifest.xml", xml(manifest()))])     a well-formed APK with an empty signing block
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

ANDROID = "http://schemas.android.com/apk/res/android"
MAGIC = b"APK Sig Block 42"
PADDING_PAIR = 0x42726577
NONE = 0xFFFFFFFF
_T = TypeVar("_T")

REFERENCE, STRING, INTEGER, HEXADECIMAL, BOOLEAN = 0x01, 0x03, 0x10, 0x11, 0x12

IDS = {
    "sharedUserId": 0x0101000B,
    "debuggable": 0x0101000F,
    "name": 0x01010003,
    "minSdkVersion": 0x0101020C,
    "versionCode": 0x0101021B,
    "versionName": 0x0101021C,
    "targetSdkVersion": 0x01010270,
    "testOnly": 0x01010272,
    "isFeatureSplit": 0x0101055B,
    "versionCodeMajor": 0x01010576,
    "isSplitRequired": 0x01010591,
    "requiredSplitTypes": 0x0101064E,
}


# --- the archive


@dataclass
class File:
    """One entry. None means the correct value; `local_*` set the local header, the others the central directory."""

    name: bytes
    content: bytes
    method: int = 0
    flags: int = 0
    crc: int | None = None
    size: int | None = None
    compressed_size: int | None = None
    extra: bytes = b""
    comment: bytes = b""
    disk: int = 0
    offset_by: int = 0
    local_name: bytes | None = None
    local_flags: int | None = None
    local_method: int | None = None
    local_crc: int | None = None
    local_size: int | None = None
    local_compressed_size: int | None = None
    local_extra: bytes = b""
    descriptor: bytes | None = None
    before: bytes = b""
    after: bytes = b""
    listed: bool = True
    aligned: int = 4

    def packed(self) -> bytes:
        if self.method != 8:
            return self.content
        deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        return deflater.compress(self.content) + deflater.flush()


def _or(value: _T | None, otherwise: _T) -> _T:
    return otherwise if value is None else value


@dataclass
class Layout:
    """What surrounds the entries. `order` is the directory's order, as file numbers; None keeps the file's order."""

    prefix: bytes = b""
    order: Sequence[int] | None = None
    padding: bytes = b""
    directory_tail: bytes = b""
    count: int | None = None
    comment: bytes = b""
    comment_size: int | None = None
    tail: bytes = b""
    signed: bool = True
    disk: int = 0


def archive(files: Sequence[File], layout: Layout | None = None) -> bytes:
    layout = layout or Layout()
    data, records = bytearray(layout.prefix), []
    for file in files:
        data += file.before
        offset, packed = len(data) + file.offset_by, file.packed()
        size, compressed = _or(file.size, len(file.content)), _or(file.compressed_size, len(packed))
        crc = _or(file.crc, zlib.crc32(file.content))
        local_name, extra = _or(file.local_name, file.name), file.local_extra
        if file.method == 0 and file.aligned > 1 and not extra:
            extra = _alignment(len(data) + 30 + len(local_name), file.aligned)
        data += struct.pack(
            "<4sHHHHHIIIHH",
            *(b"PK\x03\x04", 20, _or(file.local_flags, file.flags), _or(file.local_method, file.method), 0, 0x21),
            *(_or(file.local_crc, crc), _or(file.local_compressed_size, compressed), _or(file.local_size, size)),
            *(len(local_name), len(extra)),
        )
        data += local_name + extra + packed + (file.descriptor or b"") + file.after
        record = struct.pack(
            "<4sHHHHHHIIIHHHHHII",
            *(b"PK\x01\x02", 20, 20, file.flags, file.method, 0, 0x21, crc, compressed, size),
            *(len(file.name), len(file.extra), len(file.comment), file.disk, 0, 0, offset & NONE),
        )
        records.append(record + file.name + file.extra + file.comment if file.listed else b"")
    directory = b"".join(records[number] for number in _or(layout.order, range(len(records)))) + layout.directory_tail
    data += layout.padding
    if layout.signed:
        data += signing_block()
    count = _or(layout.count, sum(file.listed for file in files) if layout.order is None else len(layout.order))
    end = struct.pack(
        "<4sHHHHIIH",
        *(b"PK\x05\x06", layout.disk, layout.disk, count & 0xFFFF, count & 0xFFFF),
        *(len(directory), len(data), _or(layout.comment_size, len(layout.comment))),
    )
    return bytes(data) + directory + end + layout.comment + layout.tail


def signing_block(pairs: Sequence[tuple[int, bytes]] = ((PADDING_PAIR, b""),)) -> bytes:
    body = b"".join(struct.pack("<QI", len(value) + 4, id_) + value for id_, value in pairs)
    size = struct.pack("<Q", len(body) + 24)
    return size + body + size + MAGIC


def descriptor(content: bytes, packed: bytes, magic: bool = True) -> bytes:
    return (b"PK\x07\x08" if magic else b"") + struct.pack("<III", zlib.crc32(content), len(packed), len(content))


def described(file: File, magic: bool = True) -> File:
    """The file with a data descriptor, as Java's streams write it."""
    return replace(
        file,
        flags=file.flags | 8,
        descriptor=descriptor(file.content, file.packed(), magic),
        local_crc=0,
        local_size=0,
        local_compressed_size=0,
    )


def virtual(size: int) -> bytes:
    """A local header without a name, as zipflinger leaves it in a gap."""
    return struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", *[0] * 8, 0, size - 30) + bytes(size - 30)


def extra(id_: int, content: bytes = b"") -> bytes:
    return struct.pack("<HH", id_, len(content)) + content


def _alignment(start: int, to: int) -> bytes:
    """A padding field with the id 0xd935, as apksigner writes it."""
    if start % to == 0:
        return b""
    return extra(0xD935, struct.pack("<H", to) + bytes(-(start + 6) % to))


# --- the manifest


@dataclass
class Attribute:
    """An attribute. `value` is a text, a number or a boolean; `type`, `data` and `raw` override what it implies."""

    name: str
    value: str | int | bool
    namespace: str | None = ANDROID
    id: int | None = None
    type: int | None = None
    data: int | None = None
    raw: str | None = None
    size: int = 8

    @property
    def resource(self) -> int:
        return _or(self.id, IDS.get(self.name, 0) if self.namespace else 0)


@dataclass
class Node:
    """An element and its oddities. `decoys` are written where attributes usually begin."""

    name: str
    attributes: list[Attribute] = field(default_factory=list)
    children: "list[Node]" = field(default_factory=list)
    text: str | None = None
    namespace: str | None = None
    decoys: list[Attribute] = field(default_factory=list)
    attribute_size: int = 20
    header_size: int = 16
    sorted: bool = True
    count_by: int = 0
    end_name: str | None = None
    tail: bytes = b""


def manifest(
    package: str = "com.nexmdm", code: int = 2, name: str = "2.0", *, debuggable: bool = False, sdk: bool = True
) -> Node:
    application = Node("application", [Attribute("debuggable", True)] if debuggable else [])
    uses_sdk = Node("uses-sdk", [Attribute("minSdkVersion", 24), Attribute("targetSdkVersion", 33)])
    return Node(
        "manifest",
        [Attribute("versionCode", code), Attribute("versionName", name), Attribute("package", package, None)],
        [uses_sdk, application] if sdk else [application],
    )


@dataclass
class Document:
    """What surrounds the elements. `utf8` is the string pool's encoding; `chunks_*` are extra chunks, kept as given."""

    utf8: bool = False
    after_header: bytes = b""
    after_pool: bytes = b""
    after_map: bytes = b""
    after_root: bytes = b""
    after_end: bytes = b""
    size_by: int = 0
    resource_map: bool = True
    namespace: bool = True
    flags: int | None = None
    styles: int = 0


class _Pool:
    """A string pool. Names of attributes that have an id come first, one string for each id."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, int], int] = {}
        self.texts: dict[str, int] = {}

    def fill(self, nodes: Sequence[Node]) -> None:
        everything = [node for root in nodes for node in _all(root)]
        attributes = [a for node in everything for a in (*node.attributes, *node.decoys)]
        for attribute in sorted(attributes, key=lambda a: a.resource):
            if attribute.resource:
                self.names.setdefault((attribute.name, attribute.resource), len(self.names))
        texts = [ANDROID, "android"]
        for node in everything:
            texts += [node.name, node.end_name or "", node.text or "", node.namespace or ""]
        for attribute in attributes:
            texts += [attribute.name, attribute.namespace or "", attribute.raw or ""]
            texts += [attribute.value] if isinstance(attribute.value, str) else []
        for text in texts:
            self.texts.setdefault(text, len(self.names) + len(self.texts))

    def strings(self) -> list[str]:
        return [name for name, _ in self.names] + list(self.texts)

    def text(self, text: str | None) -> int:
        return NONE if text is None else self.texts[text]

    def name(self, attribute: Attribute) -> int:
        return self.names[attribute.name, attribute.resource] if attribute.resource else self.texts[attribute.name]


def xml(*roots: Node, document: Document | None = None) -> bytes:
    """A binary XML document with these root elements (a well-formed document has exactly one)."""
    document, pool = document or Document(), _Pool()
    pool.fill(roots)
    chunks = [document.after_header, string_pool(pool.strings(), document), document.after_pool]
    if document.resource_map:
        ids = b"".join(struct.pack("<I", id_) for _, id_ in pool.names)
        chunks.append(struct.pack("<HHI", 0x0180, 8, 8 + len(ids)) + ids)
    chunks.append(document.after_map)
    space = struct.pack("<II", pool.text("android"), pool.text(ANDROID))
    chunks.append(node_chunk(0x0100, space) if document.namespace else b"")
    chunks += [_element(root, pool) for root in roots]
    chunks.append(document.after_root)
    chunks.append(node_chunk(0x0101, space) if document.namespace else b"")
    body = b"".join(chunks)
    return struct.pack("<HHI", 0x0003, 8, 8 + len(body) + document.size_by) + body + document.after_end


def node_chunk(type_: int, body: bytes, header_size: int = 16) -> bytes:
    header = struct.pack("<II", 1, NONE) + bytes(header_size - 16)
    return struct.pack("<HHI", type_, header_size, header_size + len(body)) + header + body


def string_pool(strings: Sequence[str], document: Document | None = None) -> bytes:
    document = document or Document()
    encoded = [_utf8(text) if document.utf8 else _utf16(text) for text in strings]
    offsets, content = b"", b""
    for text in encoded:
        offsets += struct.pack("<I", len(content))
        content += text
    offsets += struct.pack("<I", 0) * document.styles
    content += bytes(-len(content) % 4)
    start = 28 + len(offsets)
    size = start + len(content)
    flags = _or(document.flags, 0x100 if document.utf8 else 0)
    styles_at = size if document.styles else 0
    spans = struct.pack("<III", NONE, NONE, NONE) if document.styles else b""
    head = struct.pack("<HHIIIIII", 1, 28, size + len(spans), len(strings), document.styles, flags, start, styles_at)
    return head + offsets + content + spans


def _all(node: Node) -> list[Node]:
    return [node, *(inner for child in node.children for inner in _all(child))]


def _length(size: int) -> bytes:
    return bytes([size]) if size < 0x80 else bytes([0x80 | size >> 8, size & 0xFF])


def _utf8(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return _length(len(text.encode("utf-16-le", "surrogatepass")) // 2) + _length(len(raw)) + raw + b"\0"


def _utf16(text: str) -> bytes:
    raw = text.encode("utf-16-le", "surrogatepass")
    return struct.pack("<H", len(raw) // 2) + raw + b"\0\0"


def _element(node: Node, pool: _Pool) -> bytes:
    attributes = list(node.attributes)
    if node.sorted:
        attributes.sort(key=lambda a: a.resource or 1 << 32)
    decoys = b"".join(_attribute(a, pool, node.attribute_size) for a in node.decoys)
    names = struct.pack("<II", pool.text(node.namespace), pool.text(node.name))
    numbers = struct.pack(
        "<HHHHHH", 20 + len(decoys), node.attribute_size, (len(attributes) + node.count_by) & 0xFFFF, 0, 0, 0
    )
    body = names + numbers + decoys + b"".join(_attribute(a, pool, node.attribute_size) for a in attributes)
    chunks = [node_chunk(0x0102, body + node.tail, node.header_size)]
    if node.text is not None:
        chunks.append(text_chunk(pool.text(node.text)))
    chunks += [_element(child, pool) for child in node.children]
    end = struct.pack("<II", pool.text(node.namespace), pool.text(_or(node.end_name, node.name)))
    return b"".join([*chunks, node_chunk(0x0103, end)])


def text_chunk(index: int) -> bytes:
    return node_chunk(0x0104, struct.pack("<IHBBI", index, 8, 0, 0, 0))


def _attribute(attribute: Attribute, pool: _Pool, size: int) -> bytes:
    value = attribute.value
    if isinstance(value, str):
        type_, data = STRING, pool.text(value)
    elif isinstance(value, bool):
        type_, data = BOOLEAN, NONE if value else 0
    else:
        type_, data = INTEGER, value & NONE
    type_, data = _or(attribute.type, type_), _or(attribute.data, data)
    raw = pool.text(attribute.raw) if attribute.raw is not None else data if type_ == STRING else NONE
    head = struct.pack("<III", pool.text(attribute.namespace), pool.name(attribute), raw)
    return (head + struct.pack("<HBBI", attribute.size, 0, type_, data)).ljust(size, b"\0")[:size]


# --- the resource table


@dataclass
class Resource:
    """A value of entry `entry` of type 1 of package 0x7f for one configuration (28 zero bytes match every one)."""

    value: str | int | None
    entry: int = 0
    configuration: bytes = struct.pack("<I", 28) + bytes(24)
    type: int | None = None
    flags: int = 0
    layout: str = "plain"  # or sparse, offsets16, compact


def table(
    resources: Sequence[Resource], *, spec_flags: int = 0, utf8: bool = True, package: int = 0x7F, packages: int = 1
) -> bytes:
    """A resources.arsc with entries named v0, v1 ... of the type `string`."""
    texts = [r.value for r in resources if isinstance(r.value, str)]
    entries = 1 + max((r.entry for r in resources), default=0)
    pool = string_pool(texts or ["x"], Document(utf8=utf8))
    spec = struct.pack("<HHIBBHI", 0x0202, 16, 16 + 4 * entries, 1, 0, 0, entries)
    inner = [string_pool(["string"]), string_pool([f"v{n}" for n in range(entries)])]
    inner.append(spec + struct.pack("<I", spec_flags) * entries)
    inner += [_values(resource, texts, entries) for resource in resources]
    keys_at = 288 + len(inner[0])
    name = "com.nexmdm".encode("utf-16-le").ljust(256, b"\0")
    body = b"".join(inner)
    head = struct.pack("<HHII", 0x0200, 288, 288 + len(body), package) + name
    head += struct.pack("<IIIII", 288, 1, keys_at, entries, 0)
    content = pool + (head + body) * packages
    return struct.pack("<HHII", 0x0002, 12, 12 + len(content), packages) + content


def _values(resource: Resource, texts: list[str], count: int) -> bytes:
    if isinstance(resource.value, str):
        type_, data = STRING, texts.index(resource.value)
    else:
        type_, data = INTEGER, resource.value or 0
    type_ = _or(resource.type, type_)
    compact = resource.layout == "compact"
    key = resource.entry
    entry = struct.pack("<HHI", key, 8 | type_ << 8, data) if compact else struct.pack("<HHI", 8, resource.flags, key)
    entry += b"" if compact else struct.pack("<HBBI", 8, 0, type_, data)
    if resource.layout == "sparse":
        flags, rows, offsets = 1, 1, struct.pack("<HH", key, 0)
    elif resource.layout == "offsets16":
        flags, rows = 2, count
        offsets = b"".join(struct.pack("<H", 0 if n == key else 0xFFFF) for n in range(count))
    else:
        flags, rows = 0, count
        offsets = b"".join(struct.pack("<I", 0 if n == key else NONE) for n in range(count))
    offsets += bytes(-len(offsets) % 4)
    header_size = 20 + len(resource.configuration)
    start = header_size + len(offsets)
    head = struct.pack("<HHIBBHII", 0x0201, header_size, start + len(entry), 1, flags, 0, rows, start)
    return head + resource.configuration + offsets + entry
