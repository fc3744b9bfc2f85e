"""Reads an APK's manifest like Android, and checks that a phone would install the APK.

Part of Android finds an attribute by its resource id and part by its namespace and name; an attribute that only one of
them would find is refused. Numbers must be literals: Android's installer reads a version code that refers to a resource
as 0, and rejects the next version as a downgrade. This runs only after the file's signature was verified.
"""

from typing import NamedTuple

from nexmdm.runtime.errors import BuildRefused

from functions.apk_builds import apk_entries, apk_resources, apk_xml
from functions.apk_builds.apk_entries import Entry
from functions.apk_builds.apk_file import Apk
from functions.apk_builds.apk_xml import BOOLEAN, INTEGERS, REFERENCE, STRING, Attribute, Element, Value

NAME = "AndroidManifest.xml"
MAX_BYTES = 4 * 1024 * 1024

# The attributes that are read, with the ids of android.R.attr; id 0: without id and namespace.
_IDS = {
    "package": 0,
    "split": 0,
    "configForSplit": 0,
    "sharedUserId": 0x0101000B,
    "debuggable": 0x0101000F,
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
_NAMES = {id_: name for name, id_ in _IDS.items() if id_}
_DEPTHS = {"manifest": 1, "application": 2, "uses-sdk": 2}
_LONGEST_TEXT = 1000
_SINCE_ANDROID_11 = 30


class Manifest(NamedTuple):
    """The facts of a manifest.

    Attributes:
        split: the name of the split if this file is one; None for a base APK.
        version_name: resolved if it refers to a resource; None if there is none.
        min_sdk: 1 if the manifest does not set it.
        target_sdk: min_sdk if the manifest does not set it.
        shared_user_id: None when there is none.
        needs_splits: the attributes that say that it is or needs a split; empty for a standalone APK.
    """

    package_name: str
    version_code: int
    version_name: str | None
    debuggable: bool = False
    min_sdk: int = 1
    target_sdk: int = 1
    shared_user_id: str | None = None
    split: str | None = None
    needs_splits: tuple[str, ...] = ()
    test_only: bool = False


def read(apk: Apk) -> Manifest:
    """Read an APK's archive and manifest, and check that phones install it.

    Raises:
        BuildRefused: archive or manifest cannot be read unambiguously, or Android would refuse to install the file.
    """
    entries = apk_entries.read(apk)
    manifest = facts(apk, entries)
    check_installable(manifest, entries)
    return manifest


def facts(apk: Apk, entries: dict[str, Entry]) -> Manifest:
    """Read only the manifest.

    Raises:
        BuildRefused: there is none, or it cannot be read unambiguously.
    """
    if NAME not in entries:
        raise BuildRefused("manifest", f"an {NAME}", "none")
    elements = apk_xml.elements(apk_entries.content(apk, entries[NAME], MAX_BYTES), _DEPTHS)
    if not elements or elements[0].name != "manifest":
        raise _unreadable("a <manifest> at its root", f"<{elements[0].name}>" if elements else "nothing")
    reader = _Reader(apk, entries)
    root = reader.known(elements[0])
    application = reader.known(_only(elements, "application"))
    sdk = reader.known(_only(elements, "uses-sdk"))

    code, major = reader.integer(root, "versionCode"), reader.integer(root, "versionCodeMajor")
    if code is None or code < 1:
        raise _unreadable("an android:versionCode of at least 1", "none" if code is None else str(code))
    if major:
        raise BuildRefused("manifest", "a version code of 32 bits", f"android:versionCodeMajor {major}")
    package = reader.text(root, "package")
    if package is None:
        raise _unreadable("a package name", "none")
    least = reader.integer(sdk, "minSdkVersion")
    target = reader.integer(sdk, "targetSdkVersion")
    return Manifest(
        package_name=package,
        version_code=code,
        version_name=reader.text(root, "versionName"),
        debuggable=reader.boolean(application, "debuggable"),
        min_sdk=1 if least is None else least,
        target_sdk=(1 if least is None else least) if target is None else target,
        shared_user_id=reader.text(root, "sharedUserId"),
        split=reader.text(root, "split"),
        needs_splits=tuple(reader.split_attributes(root, application)),
        test_only=reader.boolean(application, "testOnly"),
    )


class _Reader:
    """Reads attributes, and resolves references to resources."""

    def __init__(self, apk: Apk, entries: dict[str, Entry]) -> None:
        entry = entries.get(apk_resources.NAME)
        data = apk_entries.content(apk, entry, apk_resources.MAX_BYTES) if entry else None
        self._table = apk_resources.Table(data) if data is not None else None

    def known(self, element: Element | None) -> dict[str, Value]:
        """The attributes of an element that are read here, by name."""
        found: dict[str, Value] = {}
        for attribute in element.attributes if element else ():
            by_id = _NAMES.get(attribute.id)
            if by_id is None and attribute.name not in _IDS:
                continue
            _check_name(attribute, by_id)
            found[attribute.name] = attribute.value
        return found

    def integer(self, attributes: dict[str, Value], name: str) -> int | None:
        value = attributes.get(name)
        if value is None:
            return None
        if value.type not in INTEGERS:
            raise _unreadable(f"a number, written out, as {name}", _type(value))
        return value.data - 2**32 if value.data >= 2**31 else value.data

    def boolean(self, attributes: dict[str, Value], name: str) -> bool:
        value = self._resolved(attributes.get(name))
        if value is not None and value.type != BOOLEAN:
            raise _unreadable(f"true or false as {name}", _type(value))
        return value is not None and value.data != 0

    def text(self, attributes: dict[str, Value], name: str) -> str | None:
        written = attributes.get(name)
        value = written if name in ("package", "split") else self._resolved(written)
        if value is None:
            return None
        if value.type != STRING or value.text is None:
            raise _unreadable(f"a text as {name}", _type(value))
        if not value.text.isprintable() or len(value.text) > _LONGEST_TEXT:
            raise _unreadable(f"{name} of at most {_LONGEST_TEXT} printable characters", repr(value.text[:200]))
        return value.text

    def split_attributes(self, root: dict[str, Value], application: dict[str, Value]) -> list[str]:
        named = [name for name in ("split", "configForSplit", "requiredSplitTypes") if self.text(root, name)]
        flags = ("isFeatureSplit", "isSplitRequired")
        return named + [name for name in flags if self.boolean(root, name) or self.boolean(application, name)]

    def _resolved(self, value: Value | None) -> Value | None:
        if value is None or value.type != REFERENCE:
            return value
        if self._table is None:
            raise _unreadable(f"a {apk_resources.NAME} for @{value.data:08x}", "none")
        return self._table.resolve(value.data)


def _check_name(attribute: Attribute, by_id: str | None) -> None:
    """Check that readers find the same attribute by id and by namespace and name."""
    id_ = _IDS.get(attribute.name)
    namespace = apk_xml.ANDROID if id_ else None
    if by_id not in (attribute.name, None) or attribute.id != id_ or attribute.namespace != namespace:
        found = f"{attribute.name!r} of namespace {attribute.namespace!r} with the id {attribute.id:#010x}"
        raise _unreadable(f"{by_id or attribute.name} under its own name, namespace and id", found)


def _only(elements: list[Element], name: str) -> Element | None:
    found = [element for element in elements if element.name == name]
    if len(found) > 1:
        raise _unreadable(f"one <{name}> at most", str(len(found)))
    return found[0] if found else None


def check_installable(manifest: Manifest, entries: dict[str, Entry]) -> None:
    """Check the conditions that Android's installer checks on every phone.

    Raises:
        BuildRefused: phones would refuse to install the file.
    """
    if manifest.version_name is None:
        raise BuildRefused("version_name", "an android:versionName", "none in the manifest")
    if manifest.needs_splits:
        found = f"a part of an app ({', '.join(manifest.needs_splits)}): phones do not install it alone"
        raise BuildRefused("manifest", "an APK that stands alone", found)
    if manifest.test_only:
        found = 'android:testOnly="true": phones refuse to install it. Build with -Pandroid.injected.testOnly=false'
        raise BuildRefused("manifest", "an APK for phones", found)
    table = entries.get(apk_resources.NAME)
    if table is None or manifest.target_sdk < _SINCE_ANDROID_11:
        return
    expected = f"{apk_resources.NAME} stored, and aligned to 4 bytes, for target SDK {_SINCE_ANDROID_11} and more"
    if table.method != apk_entries.STORED:
        raise BuildRefused("zip", expected, f"one that is compressed, with target SDK {manifest.target_sdk}")
    if table.data_start % 4:
        found = f"one that begins at byte {table.data_start}, with target SDK {manifest.target_sdk}: run zipalign"
        raise BuildRefused("zip", expected, found)


def _type(value: Value) -> str:
    names = {REFERENCE: f"a reference to the resource @{value.data:08x}", STRING: f"the text {value.text!r}"}
    return names.get(value.type, f"a value of type {value.type:#04x}")


def _unreadable(expected: str, found: str) -> BuildRefused:
    return BuildRefused("manifest", expected, found)
