"""The manifest inside an APK: read as Android reads it, or refused."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nexmdm.runtime.errors import BuildRefused

from functions.apk_builds import apk_manifest
from functions.apk_builds.apk_manifest import NAME, Manifest
from tests.support.builds import sample


def manifest_of(name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(sample(name))) as archive:
        return archive.read(NAME)


def zipped(*entries: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return target


def refusal(apk: io.BytesIO) -> str:
    with pytest.raises(BuildRefused) as refused:
        apk_manifest.read(apk)
    return refused.value.detail


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("agent-1", Manifest("com.nexmdm", 1, "1.0", False)),
        ("agent-2-debug", Manifest("com.nexmdm", 2, "2.0-debug", True)),
        ("player-190", Manifest("io.unitynodes.unityapp", 190, "1.9.0", False)),
    ],
)
def test_what_aapt2_wrote_is_read(name: str, facts: Manifest):
    assert apk_manifest.read(io.BytesIO(sample(name))) == facts


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_manifests_and_none():
    content = manifest_of("agent-1")
    assert "expected one AndroidManifest.xml, found 2" in refusal(
        zipped((NAME, content), (NAME, manifest_of("agent-3")))
    )
    assert "expected one AndroidManifest.xml, found 0" in refusal(zipped(("other.xml", content)))


def test_a_bomb_is_not_unpacked():
    bomb = zipped((NAME, b"\0" * 400_000_000))
    assert len(bomb.getvalue()) < 1_000_000
    assert "expected at most 4194304 bytes, found more" in refusal(bomb)


def test_a_size_that_lies_is_not_believed():
    content = bytearray(zipped((NAME, b"\0" * 50_000_000)).getvalue())
    at = content.rfind(b"PK\x01\x02")
    content[at + 24 : at + 28] = (100).to_bytes(4, "little")
    refusal(io.BytesIO(bytes(content)))


def test_a_method_that_android_does_not_know():
    assert "found method 14" in refusal(zipped((NAME, manifest_of("agent-1")), method=zipfile.ZIP_LZMA))


@pytest.mark.parametrize("content", [b"", b"<manifest/>", b"\x03\0\x08\0\xff\xff\xff\xff", b"\0" * 100])
def test_no_binary_xml(content: bytes):
    refusal(zipped((NAME, content)))


@given(st.data())
def test_whatever_comes_it_is_read_or_refused(data: st.DataObject):
    content = bytearray(manifest_of("agent-2-debug"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 4))
        content[at : at + 4] = data.draw(st.sampled_from([b"\xff" * 4, b"\0" * 4]) | st.binary(min_size=1, max_size=4))
    try:
        facts = apk_manifest.read(zipped((NAME, bytes(content))))
    except BuildRefused:
        return
    assert isinstance(facts.version_code, int)
    assert isinstance(facts.package_name, str)


def test_no_prefix_of_a_manifest_is_read_as_another():
    whole = manifest_of("agent-2-debug")
    for size in range(0, len(whole), 3):
        refusal(zipped((NAME, whole[:size])))
