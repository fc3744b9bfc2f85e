import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def open_folder():
    """A folder for PostgreSQL's data: as root the server runs under another user, who cannot enter pytest's own."""
    with tempfile.TemporaryDirectory(prefix="nexmdm-test-") as folder:
        yield Path(folder)
