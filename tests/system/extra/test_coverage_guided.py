"""Coverage-guided fuzzing of the parsers by atheris (requirements/extra.txt), with FUZZ_RUNS inputs per target."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import samples
from tests.support.api import ROOT
from tests.support.builds import SAMPLES
from tests.system.fuzz.targets import SIGNED, TARGETS

RUNS = int(os.environ.get("FUZZ_RUNS", "3000"))
LIMITS = ("-timeout=10", "-rss_limit_mb=768", "-max_len=20000", "-seed=1")

if sys.version_info >= (3, 14):
    pytest.skip("atheris has no wheel for this Python; 3.11 to 3.13 run it", allow_module_level=True)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_fails_the_target(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for n, seed in enumerate(seeds(name)):
        (corpus / str(n)).write_bytes(seed)
    command = [
        sys.executable,
        "-m",
        "tests.system.fuzz.coverage",
        name,
        f"-runs={RUNS}",
        f"-artifact_prefix={tmp_path}/",
    ]
    done = subprocess.run([*command, *LIMITS, corpus], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    found = re.search(r"Done (\d+) (?:runs|in)", done.stderr)
    reached = re.findall(r"cov: (\d+) ft", done.stderr)
    assert found, done.stderr[-2000:]
    assert int(reached[-1]) > 10, "the target is not instrumented"
    with capsys.disabled():
        print(f"\natheris: {found[1]} inputs to {name}, {reached[-1]} edges reached")


def seeds(name: str) -> list[bytes]:
    """The seed inputs: the bodies of the sample events, or the sample APKs."""
    if name == "apks":
        return [path.read_bytes() for path in sorted(SAMPLES.glob("*.apk"))]
    if name == "mutated_apks":
        return [bytes([n]) + bytes(14) for n in range(15)]
    if name == "label_selectors":
        return [b"site=berlin,role!=spare,stage in (pilot,canary),owner,!retired,floor>3", b"a notin (,b),c<1"]
    if name == "cursors":
        return [b"WyJ4Il0", b"WyIyMDI2LTAxLTAxVDAwOjAwOjAwWiIsIngiXQ", b"WzFd"]
    bodies = [event["body"].encode() for event in map(samples.load, samples.files()) if event.get("body")]
    if name == "events":
        head = b"/1?limit=1\nhost: x\ncontent-type: application/json\n"
        return [head + b"authorization: Bearer x\n\n" + body for body in bodies] + [head + SIGNED.encode() + b"\n\n{}"]
    return bodies
