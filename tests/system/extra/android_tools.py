"""Debian's Android tools: what they read from an APK, and the kinds of APK that they make."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

TOOLS = {"aapt": "aapt", "aapt2": "aapt", "zipalign": "zipalign", "apksigner": "apksigner", "openssl": "openssl"}


def check_installed() -> None:
    """Fail and name the package if a tool is missing."""
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    assert not missing, f"these tests need Debian's packages: apt-get install {' '.join(missing)}"


class Badging(NamedTuple):
    """The output of `aapt dump badging`, as far as the server reads the same facts."""

    package_name: str
    version_code: int
    version_name: str
    min_sdk: int
    target_sdk: int
    debuggable: bool
    split: str | None
    test_only: bool


def badging(tool: str, file: Path) -> Badging | str:
    """What a tool reads, or its error."""
    done = subprocess.run([tool, "dump", "badging", file], capture_output=True, check=False, timeout=20)
    text = done.stdout.decode(errors="replace")
    package = re.search(r"^package: name='(.*?)' versionCode='(-?\d*)' versionName='(.*?)'(.*)$", text, re.M)
    if done.returncode or package is None:
        return done.stderr.decode(errors="replace")[-500:] or f"exit {done.returncode}"
    least, target = re.search(r"^sdkVersion:'(.*)'", text, re.M), re.search(r"^targetSdkVersion:'(.*)'", text, re.M)
    split = re.search(r" split='(.*?)'", package[4])
    min_sdk = int(least[1]) if least else 1
    return Badging(
        package_name=package[1],
        version_code=int(package[2] or -1),
        version_name=package[3],
        min_sdk=min_sdk,
        target_sdk=int(target[1]) if target else min_sdk,
        debuggable="\napplication-debuggable\n" in text,
        split=split[1] if split else None,
        test_only=re.search(r"^testOnly='-1'", text, re.M) is not None,
    )


# --- making APKs

ATTRIBUTES = {
    "sharedUserId": ("string", 0x0101000B),
    "debuggable": ("boolean", 0x0101000F),
    "name": ("string", 0x01010003),
    "label": ("reference|string", 0x01010001),
    "minSdkVersion": ("integer|string", 0x0101020C),
    "versionCode": ("integer", 0x0101021B),
    "versionName": ("string", 0x0101021C),
    "targetSdkVersion": ("integer|string", 0x01010270),
    "testOnly": ("boolean", 0x01010272),
    "extractNativeLibs": ("boolean", 0x010104EA),
    "versionCodeMajor": ("integer", 0x01010576),
    "isSplitRequired": ("boolean", 0x01010591),
    "requiredSplitTypes": ("string", 0x0101064E),
    "compileSdkVersion": ("integer", 0x01010572),
}
NAMESPACE = 'xmlns:android="http://schemas.android.com/apk/res/android"'


class Workshop:
    """A folder with a framework to link against and keys to sign with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        values = folder / "framework" / "values"
        values.mkdir(parents=True)
        lines = [
            f'<public type="attr" name="{name}" id="{id_:#010x}"/> <attr name="{name}" format="{format_}"/>'
            for name, (format_, id_) in ATTRIBUTES.items()
        ]
        (values / "attributes.xml").write_text(f"<resources>{''.join(lines)}</resources>")
        (folder / "framework.xml").write_text(f'<manifest {NAMESPACE} package="android"/>')
        self.run("aapt2", "compile", "--dir", "framework", "-o", "framework.zip")
        self.run("aapt2", "link", "--manifest", "framework.xml", "-o", "framework.apk", "framework.zip")
        for name in ("rsa", "stamp"):
            subject = ["-nodes", "-days", "36500", "-subj", f"/CN=NexMDM {name}", "-newkey", "rsa:2048"]
            self.run("openssl", "req", "-x509", *subject, "-keyout", f"{name}.pem", "-out", f"{name}.crt")
            form = ["-topk8", "-nocrypt", "-outform", "DER"]
            self.run("openssl", "pkcs8", *form, "-in", f"{name}.pem", "-out", f"{name}.pk8")

    def run(self, *command: Any) -> None:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, f"{command}: {done.stdout[-1000:]}{done.stderr[-1000:]}"

    def linked(
        self, name: str, root: str = "", application: str = "", options: tuple[str, ...] = (), tool: str = "aapt2"
    ) -> Path:
        """An APK with this manifest and a few resources, as the linker writes it."""
        folder = self.folder / name
        folder.mkdir()
        manifest = folder / "AndroidManifest.xml"
        if 'android:versionName="' not in root:
            root += ' android:versionName="2.0"'
        manifest.write_text(
            f'<manifest {NAMESPACE} package="com.nexmdm" android:versionCode="2" {root}>'
            f'<uses-sdk android:minSdkVersion="24" android:targetSdkVersion="33"/>'
            f"<application {application}/></manifest>"
        )
        res = folder / "res"
        for folder, texts in (("values", {"v": "8.4.5", "w": "@string/v"}), ("values-de", {"l": "Kiosk"})):
            (res / folder).mkdir(parents=True)
            lines = "".join(f'<string name="{key}">{text}</string>' for key, text in ({"l": "Kiosk"} | texts).items())
            yes = '<bool name="yes">true</bool>' if folder == "values" else ""
            (res / folder / "strings.xml").write_text(f"<resources>{lines}{yes}</resources>")
        (res / "drawable").mkdir()
        (res / "drawable" / "d.xml").write_text(f"<shape {NAMESPACE}/>")
        out = self.folder / f"{name}.raw.apk"
        if tool == "aapt":
            where = ["-M", manifest, "-S", res, "-I", "framework.apk", "-F", out]
            self.run("aapt", "package", "-f", *options, *where)
        else:
            self.run("aapt2", "compile", "--dir", res, "-o", f"{name}.zip")
            self.run("aapt2", "link", "--manifest", manifest, "-I", "framework.apk", *options, "-o", out, f"{name}.zip")
        return out

    def aligned(self, file: Path, *options: str) -> Path:
        out = file.with_suffix(".aligned.apk")
        self.run("zipalign", "-f", *options, "4", file, out)
        return out

    def signed(self, file: Path, *options: str) -> Path:
        out = file.with_suffix(".signed.apk")
        self.run("apksigner", "sign", "--key", "rsa.pk8", "--cert", "rsa.crt", *options, "--out", out, file)
        return out
