"""A fake `adb` with one phone, for testing the scripts that set phones up.

The phone's state is a JSON file that a test reads. Run as a program, this module acts as adb.
The phone's shell splits its command line as the real one does.
"""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

UNKNOWN = {"com.example.absent"}


def install(folder: Path, **state: Any) -> dict[str, str]:
    """Put `adb` into a folder and return the environment in which a script finds it.

    Args:
        state: Differences from a factory-fresh phone: `accounts`, `android`, `device_owner`.
    """
    folder.mkdir(exist_ok=True)
    fresh = {"accounts": 0, "android": 14, "installed": {}, "device_owner": None, "settings": {}, "ran": []}
    (folder / "phone.json").write_text(json.dumps(fresh | state))
    program = folder / "adb"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "FAKE_PHONE": str(folder / "phone.json")}


def phone(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "phone.json").read_text())


def main(words: list[str]) -> int:
    file = Path(os.environ["FAKE_PHONE"])
    state = json.loads(file.read_text())
    match words:
        case ["get-state"]:
            print("device")
            return 0
        case ["install", "-r", apk]:
            state["installed"]["com.nexmdm"] = Path(apk).stem.rpartition("-")[2]
            code = 0
        case ["shell", line]:
            words = shlex.split(line)
            state["ran"].append(words)
            code = _shell(state, words)
        case _:
            code = 1
    file.write_text(json.dumps(state))
    return code


def _shell(state: dict[str, Any], words: list[str]) -> int:
    match words:
        case ["dumpsys", "package", package]:
            code = state["installed"].get(package)
            print(f"    versionCode={code} minSdk=26 targetSdk=34" if code else "")
        case ["dumpsys", "device_policy"]:
            print(
                f"  Device Owner:\n    admin=ComponentInfo{{{state['device_owner']}}}" if state["device_owner"] else ""
            )
        case ["dpm", "set-device-owner", component]:
            if state["accounts"] or state["device_owner"]:
                print("java.lang.IllegalStateException: Not allowed to set the device owner", file=sys.stderr)
                return 1
            state["device_owner"] = component
        case ["pm", "grant", _, "android.permission.POST_NOTIFICATIONS"]:
            return 0 if state["android"] >= 13 else 255
        case ["pm", "disable-user", "--user", "0", package]:
            return 1 if package in UNKNOWN else 0
        case ["settings", "get", "global", name]:
            print(state["settings"].get(name, "null"))
        case ["settings", "put", "global", name, value]:
            state["settings"][name] = value
        case ["am", "broadcast", *options]:
            extras = {options[i + 1]: options[i + 2] for i, word in enumerate(options) if word == "--es"}
            state["registered"] = _register(extras)
            state["extras"] = extras
    return 0


def _register(extras: dict[str, str]) -> int:
    """Register with urllib: importing httpx would take longer than the rest of the script."""
    from urllib.request import Request, urlopen

    headers = {"X-Admin-Key": extras["admin_key"], "Content-Type": "application/json"}
    body = json.dumps({"alias": extras["alias"]}).encode()
    with urlopen(Request(f"{extras['server_url']}/v1/register", body, headers)) as response:
        return response.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
