"""A simulated fleet: `python -m local.fleet --url http://... --devices 20`.

Half of the phones carry the agent in the field with everything that it does wrong (`field`), half an agent that follows
docs/device.md to the letter (`reference`). What they count is what the server answered, so that a run can compare the
rows in the database with the distinct buckets that were sent.
"""
