"""The API's reference: OpenAPI 3.1 out of template.yaml, the types that validate, and the handlers' docstrings.

A new route is a docstring on its function, an entry in `operations`, and `make openapi`; tests say what is missing.
Nothing of this is in what is deployed.
"""

from typing import Any, TypeAlias

# A part of an OpenAPI document, or a JSON Schema.
Schema: TypeAlias = dict[str, Any]
