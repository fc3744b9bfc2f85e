"""Scripts of `nexmdm enroll create --script` pass shellcheck for any values (Debian package: shellcheck)."""

import shutil
import subprocess

import pytest
from nexmdm_cli.kit import Kit

PLAIN = Kit(
    server_url="https://mdm.example",
    admin_key="token",
    token_id="17",
    alias="lobby",
    package="com.nexmdm",
    admin_component="com.nexmdm/.NexDeviceAdminReceiver",
    receiver="com.nexmdm/.ConfigReceiver",
    version_name="1.0",
    version_code="1",
    apk="com.nexmdm-1.apk",
    sha256="ab" * 32,
    download_url="https://mdm.example/v1/apk/download/latest?token=t",
)
VALUES = ["lobby", "it's", "$(reboot) `id` $HOME", 'the "hall" \\', "two\nlines", "# comment", "ünï 🙂"]


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("value", VALUES)
def test_script_passes_shellcheck(tmp_path, shell, value):
    assert shutil.which("shellcheck"), "install the Debian package shellcheck"
    kit = Kit(**{**vars(PLAIN), "alias": value, "hmac_primary_key": value, "disable": "com.a\ncom.b"})
    script = kit.save(tmp_path, "script")
    checked = subprocess.run(["shellcheck", "--shell", shell, script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
