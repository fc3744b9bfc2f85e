"""A simulated fleet that speaks as the agent in the field does: `python -m local.fleet --url http://... --devices 20`.

What it sends follows the agent field by field and header by header; what it counts is what the server answered, so that
a run can compare the rows in the database with the distinct buckets it sent.
"""
