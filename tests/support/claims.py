"""How much the torture tests try, and how they say what held."""

import os
from collections.abc import Callable

# TORTURE=10 tries ten times as much; `make torture` does.
SCALE = int(os.environ.get("TORTURE", "1"))
Claim = Callable[[str, str, int], None]
