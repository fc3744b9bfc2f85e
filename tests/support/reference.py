"""Check a response against the OpenAPI document, so that every test that makes a call tests the document too."""

import json

import msgspec
from nexmdm.runtime.problems import Problem

from local.openapi.operations import operations, refusals


def check(route_key: str, status: int, headers: dict[str, str], text: str) -> None:
    """Raise AssertionError if the OpenAPI document does not describe this response."""
    answers = operations()[route_key].answers
    assert status in answers or status in refusals(route_key), f"{route_key} answers {status}, which is not documented"
    answer = answers.get(status)
    types = answer.types if answer else (Problem,)
    assert not answer or set(answer.headers) <= {name for name in answer.headers if name.lower() in headers}
    if not types:
        assert text == "", f"{route_key} answers {status} with a body, which is not documented"
        return
    wrong = []
    for type_ in types:
        try:
            msgspec.convert(json.loads(text), type_, strict=True)
            return
        except msgspec.ValidationError as error:
            wrong.append(f"{type_.__name__}: {error}")
    raise AssertionError(f"{route_key} answers {status} in an undocumented form: {'; '.join(wrong)}")
