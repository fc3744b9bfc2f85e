"""A simulated fleet: `python -m local.fleet --url http://... --devices 20`.

Half of the phones run the existing agent with all its defects (`field`), half an agent that follows docs/device.md
exactly (`reference`). They count the server's responses, so that a run can compare the rows in the database with the
distinct buckets that were sent.
"""
