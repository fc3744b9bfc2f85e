"""Reads a binary XML document strictly in the form that aapt2 writes; Android's own reader (ResXMLTree) is more
lenient.

Android finds an attribute by its resource id in some places and by namespace and name in others, and its search by id
relies on sorted attributes. `Element.attributes` has the attributes that both find; an element for which they differ is
rejected.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from nexmdm.runtime.errors import BuildRefused

from functions.apk_builds import apk_chunks
from functions.apk_builds.apk_chunks import NO_INDEX, Chunk, Strings

WHAT = "manifest"
ANDROID = "http://schemas.android.com/apk/res/android"
MAX_CHUNKS = 200_000
MAX_DEPTH = 100

_XML, _RESOURCE_MAP = 0x0003, 0x0180
_START_NAMESPACE, _END_NAMESPACE, _START_ELEMENT, _END_ELEMENT, _TEXT = range(0x0100, 0x0105)
_SIZES = {_START_NAMESPACE: 24, _END_NAMESPACE: 24, _END_ELEMENT: 24, _TEXT: 28}
_NODE_HEADER, _ATTRIBUTES_AT, _ATTRIBUTE_BYTES = 16, 36, 20
_ELEMENT = struct.Struct("<IIHHHHHH")
_ATTRIBUTE = struct.Struct("<IIIHBBI")

REFERENCE, STRING, INTEGERS, BOOLEAN = 0x01, 0x03, (0x10, 0x11), 0x12


class Value(NamedTuple):
    """A typed value. `text` is None unless it is a string."""

    type: int
    data: int
    text: str | None = None


class Attribute(NamedTuple):
    """`id` is 0 and `namespace` None if there is none."""

    namespace: str | None
    name: str
    id: int
    value: Value


class Element(NamedTuple):
    name: str
    attributes: list[Attribute]


def elements(content: memoryview, depths: dict[str, int]) -> list[Element]:
    """Read the elements of these names, in the order of the document. The root has the depth 1.

    Raises:
        BuildRefused: aapt2 would not write such a document, or one of the names is at another depth: aapt2 reads an
        <application> anywhere, Android only inside the root.
    """
    document = apk_chunks.read(content, 0, WHAT)
    if (document.type, document.header_size) != (_XML, 8) or len(document.data) != len(content):
        raise _refused("a binary XML document that fills its file", f"type {document.type:#06x}, {len(content)} bytes")
    chunks = apk_chunks.walk(content, 8, WHAT, MAX_CHUNKS)
    strings, ids, first = _preamble(chunks)
    return list(_Walk(strings, ids, depths).run(first, chunks))


def _preamble(chunks: Iterator[Chunk]) -> tuple[Strings, list[int], Chunk]:
    """The string pool, the resource ids of its first strings, and the first node."""
    pool = next(chunks, None)
    if pool is None:
        raise _refused("a string pool first", "nothing")
    strings = Strings(pool, WHAT)
    if strings.styles:
        raise _refused("a string pool without styles", f"{strings.styles} styles")
    ids: list[int] = []
    chunk = next(chunks, None)
    if chunk is not None and chunk.type == _RESOURCE_MAP:
        if chunk.header_size != 8 or len(chunk.data) > 8 + 4 * strings.count:
            raise _refused("one resource id for each string at most", f"{len(chunk.data)} bytes of ids")
        ids = [id_ for (id_,) in struct.iter_unpack("<I", chunk.data[8:])]
        chunk = next(chunks, None)
    if chunk is None:
        raise _refused("elements", "none")
    return strings, ids, chunk


class _Walk:
    def __init__(self, strings: Strings, ids: list[int], depths: dict[str, int]) -> None:
        self._strings, self._ids, self._depths = strings, ids, depths
        self._names: dict[int, str] = {}
        self._open: list[tuple[int, int]] = []  # namespace and name of the open elements
        self._namespaces: list[tuple[int, int]] = []
        self._root_is_over = False

    def run(self, first: Chunk, chunks: Iterator[Chunk]) -> Iterator[Element]:
        for chunk in (first, *chunks):
            if chunk.header_size != _NODE_HEADER or chunk.type not in (*_SIZES, _START_ELEMENT):
                raise _refused("nodes of XML", f"type {chunk.type:#06x}, header {chunk.header_size} at {chunk.at}")
            if chunk.type in _SIZES and len(chunk.data) != _SIZES[chunk.type]:
                raise _refused(f"a node of {_SIZES[chunk.type]} bytes", f"{len(chunk.data)} at {chunk.at}")
            if chunk.type == _START_ELEMENT:
                element = self._start(chunk)
                if element is not None:
                    yield element
            elif chunk.type == _END_ELEMENT:
                self._end(chunk)
            elif chunk.type == _TEXT:
                if not self._open:
                    raise _refused("text inside the root element", f"text outside of it at {chunk.at}")
            else:
                self._namespace(chunk)
        if self._open or not self._root_is_over or self._namespaces:
            raise _refused("elements and namespaces that end", "some that do not")

    def _start(self, chunk: Chunk) -> Element | None:
        if len(chunk.data) < _ATTRIBUTES_AT:
            raise _refused(f"an element of at least {_ATTRIBUTES_AT} bytes", f"{len(chunk.data)} at {chunk.at}")
        namespace, name, at, size, count, *special = _ELEMENT.unpack_from(chunk.data, _NODE_HEADER)
        if self._root_is_over:
            raise _refused("one root element", f"another at {chunk.at}")
        if (at, size) != (20, 20):
            found = f"attributes of {size} bytes that begin at {at}, at {chunk.at}"
            raise _refused("attributes of 20 bytes that begin at 20", found)
        if len(chunk.data) != _ATTRIBUTES_AT + count * _ATTRIBUTE_BYTES:
            raise _refused(f"an element of exactly {count} attributes", f"{len(chunk.data)} bytes at {chunk.at}")
        if max(special) > count:
            raise _refused(f"id, class and style among {count} attributes", f"{special} at {chunk.at}")
        self._open.append((namespace, name))
        if len(self._open) > MAX_DEPTH:
            raise _refused(f"at most {MAX_DEPTH} elements inside each other", "more")
        if name not in self._names:
            self._names[name] = self._strings.text(name)
        text, depth = self._names[name], len(self._open)
        if text not in self._depths and depth > 1:
            return None
        if depth != self._depths.get(text, 1):
            raise _refused(f"<{text}> at the depth {self._depths[text]}", f"one at the depth {depth}")
        if namespace != NO_INDEX:
            raise _refused("elements without a namespace", f"<{text}> with one")
        attributes = [self._attribute(chunk, number, text) for number in range(count)]
        _check_order(attributes, text)
        return Element(text, attributes)

    def _end(self, chunk: Chunk) -> None:
        if not self._open or self._open.pop() != struct.unpack_from("<II", chunk.data, _NODE_HEADER):
            raise _refused("the end of the innermost element", f"another one at {chunk.at}")
        self._root_is_over = not self._open

    def _namespace(self, chunk: Chunk) -> None:
        pair = struct.unpack_from("<II", chunk.data, _NODE_HEADER)
        if chunk.type == _START_NAMESPACE:
            self._namespaces.append(pair)
        elif not self._namespaces or self._namespaces.pop() != pair:
            raise _refused("the end of the innermost namespace", f"another one at {chunk.at}")

    def _attribute(self, chunk: Chunk, number: int, element: str) -> Attribute:
        namespace, name, raw, size, zero, type_, data = _ATTRIBUTE.unpack_from(
            chunk.data, _ATTRIBUTES_AT + number * _ATTRIBUTE_BYTES
        )
        text = self._strings.text(name)
        if size != 8 or zero:
            raise _refused(f"a value of 8 bytes in {text} of <{element}>", f"{size} bytes, {zero}")
        if type_ == STRING and raw not in (NO_INDEX, data) and self._strings.text(raw) != self._strings.text(data):
            found = f"{self._strings.text(raw)!r} and {self._strings.text(data)!r}"
            raise _refused(f"one value of {text} in <{element}>", found)
        return Attribute(
            namespace=None if namespace == NO_INDEX else self._strings.text(namespace),
            name=text,
            id=self._ids[name] if name < len(self._ids) else 0,
            value=Value(type_, data, self._strings.text(data) if type_ == STRING else None),
        )


def _check_order(attributes: list[Attribute], element: str) -> None:
    """Android's search by id needs ascending ids, and uses the first of two equal ones."""
    ids = [attribute.id for attribute in attributes]
    with_id = [id_ for id_ in ids if id_]
    if with_id != sorted(set(with_id)) or ids[: len(with_id)] != with_id:
        raise _refused(f"attributes of <{element}> once each, sorted by resource id", ", ".join(map(hex, ids)))
    names = [(attribute.namespace, attribute.name) for attribute in attributes]
    if len(set(names)) != len(names):
        raise _refused(f"attributes of <{element}> once each", "a name twice")


def _refused(expected: str, found: str) -> BuildRefused:
    return BuildRefused(WHAT, expected, found)
