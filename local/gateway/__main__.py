"""`python -m local.gateway`: serves the template's routes locally."""

from local.gateway.server import main

main()
