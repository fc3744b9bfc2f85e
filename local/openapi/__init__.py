"""The API reference: an OpenAPI 3.1 document generated from template.yaml, the types and the handlers' docstrings.

A new route needs a docstring and annotations on its handler, and `make openapi`; tests check that nothing is missing.
This package is not deployed.
"""

from typing import Any, TypeAlias

# A part of an OpenAPI document, or a JSON Schema.
Schema: TypeAlias = dict[str, Any]
