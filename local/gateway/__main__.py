"""`python -m local.gateway`: serve the template's routes on this machine."""

from local.gateway.server import main

main()
