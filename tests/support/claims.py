"""How many attempts the torture tests make, and how they report what held."""

import os
from collections.abc import Callable

# TORTURE=10 makes ten times as many attempts, as `make torture` does.
SCALE = int(os.environ.get("TORTURE", "1"))
Claim = Callable[[str, str, int], None]
