"""`python -m local.postgres stop | url`: the local embedded server."""

import sys

from local.postgres.embedded import main

main(sys.argv[1:])
