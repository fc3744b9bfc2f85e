"""`python -m local.postgres stop | url`: the embedded server of this machine."""

import sys

from local.postgres.embedded import main

main(sys.argv[1:])
