"""Checks of a deploy without an account: `make rehearse`, or `python -m local.rehearse`."""
