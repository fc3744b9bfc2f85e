"""The API's reference: OpenAPI 3.1 out of template.yaml, the types that validate, and the handlers' docstrings.

A new route is a docstring on its function, an entry in `operations`, and `make openapi`; tests say what is missing.
Nothing of this is in what is deployed.
"""
