"""RDS's certificates: only the pinned bundle gets into a build."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from local import ca_bundle
from local.rds.door import certificates


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The bundle that a host serves, and its URL."""
    folder = tmp_path / "host"
    folder.mkdir()
    certificates(folder)
    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder / "ca.pem", f"http://127.0.0.1:{server.server_port}/ca.pem"
        server.shutdown()
        thread.join()


def test_pinned_bundle_is_downloaded_once(served, tmp_path: Path, capsys):
    offered, url = served
    path, pin = tmp_path / "out" / "bundle.pem", tmp_path / "pin.sha256"
    ca_bundle.pin(path, url, pin)
    digest = hashlib.sha256(offered.read_bytes()).hexdigest()
    assert pin.read_text() == f"{digest}  global-bundle.pem\n"
    assert f"1 certificates, SHA-256 {digest}" in capsys.readouterr().out
    path.unlink()
    ca_bundle.check(path, url, pin)
    assert path.read_bytes() == offered.read_bytes()
    offered.unlink()
    ca_bundle.check(path, url, pin)  # from the file


def test_other_bundle_is_refused_and_not_left_behind(served, tmp_path: Path):
    offered, url = served
    path, pin = tmp_path / "bundle.pem", tmp_path / "pin.sha256"
    ca_bundle.pin(path, url, pin)
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(SystemExit, match="is pinned"):
        ca_bundle.check(path, url, pin)
    assert not path.exists()
    offered.write_bytes(offered.read_bytes() + b"\n")
    with pytest.raises(SystemExit, match="is pinned"):
        ca_bundle.check(path, url, pin)
    assert not path.exists()


def test_nothing_is_downloaded_without_a_pin(tmp_path: Path):
    with pytest.raises(SystemExit, match="no hash is pinned"):
        ca_bundle.check(tmp_path / "bundle.pem", "http://127.0.0.1:9/", tmp_path / "none")


def test_file_that_is_not_a_bundle_is_not_pinned(served, tmp_path: Path):
    offered, url = served
    offered.write_text("<html>")
    with pytest.raises(SystemExit, match="did not return PEM"):
        ca_bundle.pin(tmp_path / "bundle.pem", url, tmp_path / "pin")
    assert not (tmp_path / "pin").exists()
