"""What can be known of a deploy without an account: `make rehearse`, which is `python -m local.rehearse`."""
