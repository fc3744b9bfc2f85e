"""The server reads APKs as Android's own tools do: those that the tools make, and mutations of them.

`APK_MUTATIONS` is the number of mutations: 500 in CI, 5,000 or more by hand. Needs Debian's aapt, apksigner, zipalign.
"""

import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from nexmdm.runtime.errors import BuildRefused

from functions.apk_builds import apk_entries, apk_file, apk_manifest, apk_signature
from functions.apk_builds.apk_manifest import Manifest
from tests.support import apk_mutations
from tests.support import apk_writer as write
from tests.support.builds import SAMPLES
from tests.system.extra.android_tools import Badging, Workshop, badging, check_installed

MUTATIONS = int(os.environ.get("APK_MUTATIONS", "500"))
TOOLS = ("aapt", "aapt2")


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    check_installed()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


def facts(data: bytes) -> Manifest | str:
    """What the server reads, whether phones would install the file or not, or its error."""
    try:
        apk = apk_file.parse(memoryview(data))
        return apk_manifest.facts(apk, apk_entries.read(apk))
    except BuildRefused as refused:
        return refused.detail


def as_badging(manifest: Manifest) -> Badging:
    return Badging(
        package_name=manifest.package_name,
        version_code=manifest.version_code,
        version_name=_escaped(manifest.version_name or ""),
        min_sdk=manifest.min_sdk,
        target_sdk=manifest.target_sdk,
        debuggable=manifest.debuggable,
        split=manifest.split,
        test_only=manifest.test_only,
    )


def _escaped(text: str) -> str:
    """Format a text as aapt prints it (ResTable::normalizeForOutput)."""
    return text.replace("\\", "\\\\").replace("'", "\\'").replace('"', '\\"')


def differences(data: bytes, file: Path) -> tuple[Manifest | str, list[str]]:
    """What the server reads, and the tools that read something else."""
    read = facts(data)
    if isinstance(read, str):
        return read, []
    file.write_bytes(data)
    wanted = as_badging(read)
    found = {tool: badging(tool, file) for tool in TOOLS}
    return read, [f"{tool}: {other}\nserver: {wanted}" for tool, other in found.items() if other != wanted]


def test_mutations_are_read_as_by_android_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    count: Counter[str] = Counter()

    @settings(max_examples=MUTATIONS, suppress_health_check=list(HealthCheck), derandomize=MUTATIONS <= 500)
    @given(apk_mutations.apks())
    def holds(mutation: tuple[str, bytes]) -> None:
        kinds, data = mutation
        read, wrong = differences(data, tmp_path / "mutation.apk")
        count["mutations"] += 1
        count["refused" if isinstance(read, str) else "read the same"] += 1
        assert not wrong, f"{kinds}\n" + "\n".join(wrong)

    holds()
    with capsys.disabled():
        print(f"\ndifferential: {dict(count)} against {' and '.join(TOOLS)}")
    assert count["mutations"] >= MUTATIONS
    assert count["read the same"] > MUTATIONS // 20, (
        "too few mutations are readable for the comparison to mean anything"
    )


def test_comparison_detects_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A reader that assumes the usual position of attributes finds the decoys instead."""
    monkeypatch.setattr("functions.apk_builds.apk_manifest.facts", lambda *_: Manifest("com.nexmdm", 3, "2.0"))
    _, wrong = differences((SAMPLES / "agent-2.apk").read_bytes(), tmp_path / "sample.apk")
    assert len(wrong) == len(TOOLS)


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.apk")), ids=lambda path: path.stem)
def test_samples_are_read_as_by_android(path: Path, tmp_path: Path):
    _, wrong = differences(path.read_bytes(), tmp_path / "sample.apk")
    assert not wrong


BUNDLE = ("--v1-signing-enabled", "true", "--min-sdk-version", "21")
STAMP = ("--stamp-signer", "--key", "stamp.pk8", "--cert", "stamp.crt")
V4 = ("--v4-signing-enabled", "true")


def described(workshop: Workshop, file: Path) -> Path:
    """The same entries with data descriptors, as Java's streams write them."""
    apk = file.read_bytes()
    entries = []
    with zipfile.ZipFile(io.BytesIO(apk)) as archive:
        for entry in archive.infolist():
            method = 0 if entry.filename == "resources.arsc" else 8
            new = write.File(entry.filename.encode(), archive.read(entry), method=method)
            entries.append(write.described(new) if method else new)
    out = file.with_suffix(".described.apk")
    out.write_bytes(write.archive(entries, write.Layout(signed=False)))
    return out


def shapes() -> Iterator[tuple[str, Callable[[Workshop, str], Path]]]:
    """What Google's tools make, by name. None of it may be refused."""
    yield "plain", lambda w, n: w.signed(w.aligned(w.linked(n)))
    yield "aapt", lambda w, n: w.signed(w.aligned(w.linked(n, tool="aapt")))
    yield "not-aligned", lambda w, n: w.signed(w.linked(n))
    yield "pages", lambda w, n: w.signed(w.aligned(w.linked(n), "-p"))
    yield "every-scheme", lambda w, n: w.signed(w.aligned(w.linked(n)), *BUNDLE, *V4)
    yield "source-stamp", lambda w, n: w.signed(w.aligned(w.linked(n)), *STAMP)
    yield "stamp-and-v1", lambda w, n: w.signed(w.aligned(w.linked(n)), *BUNDLE, *STAMP, *V4)
    yield "descriptors", lambda w, n: w.signed(w.aligned(described(w, w.linked(n))))
    yield "zopfli", lambda w, n: w.signed(w.aligned(w.linked(n), "-z"))
    yield "version-by-reference", lambda w, n: w.signed(w.aligned(w.linked(n, 'android:versionName="@string/v"')))
    yield "reference-twice", lambda w, n: w.signed(w.aligned(w.linked(n, 'android:versionName="@string/w"')))
    yield (
        "aapt-reference",
        lambda w, n: w.signed(w.aligned(w.linked(n, 'android:versionName="@string/w"', tool="aapt"))),
    )
    sparse = ("--enable-sparse-encoding",)
    by_name = 'android:versionName="@string/v"'
    yield "sparse", lambda w, n: w.signed(w.aligned(w.linked(n, by_name, options=sparse)))
    yield "kept-raw-values", lambda w, n: w.signed(w.aligned(w.linked(n, by_name, options=("--keep-raw-values",))))
    yield "debuggable", lambda w, n: w.signed(w.aligned(w.linked(n, "", 'android:debuggable="true"')))
    yield "debuggable-by-name", lambda w, n: w.signed(w.aligned(w.linked(n, "", 'android:debuggable="@bool/yes"')))
    yield "wide-characters", lambda w, n: w.signed(w.aligned(w.linked(n, 'android:versionName="1.0-ä-😀"')))
    more = 'android:sharedUserId="com.nexmdm.all" android:versionCodeMajor="0" android:compileSdkVersion="33"'
    yield "more-attributes", lambda w, n: w.signed(w.aligned(w.linked(n, more, 'android:label="@string/l"')))
    yield "signed-twice", lambda w, n: w.signed(w.signed(w.aligned(w.linked(n))))
    yield "not-compressed", lambda w, n: w.signed(w.aligned(w.linked(n, options=("-0", "xml"))))


@pytest.mark.parametrize(("name", "make"), list(shapes()), ids=lambda value: value if isinstance(value, str) else "")
def test_files_of_the_tools_are_read_as_by_the_tools(
    name: str, make: Callable[[Workshop, str], Path], workshop: Workshop
):
    file = make(workshop, name)
    data = file.read_bytes()
    apk = apk_file.parse(memoryview(data))
    apk_signature.verify(apk)
    manifest = apk_manifest.read(apk) if name != "not-aligned" else apk_manifest.facts(apk, apk_entries.read(apk))
    for tool in TOOLS:
        assert badging(tool, file) == as_badging(manifest)


def test_apk_that_phones_refuse_is_refused(workshop: Workshop):
    """The files are compiled by aapt2, and refused with the reason."""
    reasons = {
        "test-only": (("", 'android:testOnly="true"'), "testOnly"),
        "split-needed": (('android:isSplitRequired="true"', ""), "isSplitRequired"),
        "split-types": (('android:requiredSplitTypes="base__abi"', ""), "requiredSplitTypes"),
        "split": (('split="config.de"', ""), "split"),
    }
    for name, (attributes, says) in reasons.items():
        data = workshop.signed(workshop.aligned(workshop.linked(name, *attributes))).read_bytes()
        with pytest.raises(BuildRefused, match=says):
            apk_manifest.read(apk_file.parse(memoryview(data)))
