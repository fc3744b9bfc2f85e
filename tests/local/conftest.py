import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def open_folder():
    """A folder for PostgreSQL's data: started by root, the server is another user, which cannot enter pytest's own."""
    with tempfile.TemporaryDirectory(prefix="nexmdm-test-") as folder:
        yield Path(folder)
