"""Random requests to every route. tests/system/extra/test_limits_of_values.py tries the limits of every value."""

import pytest

from tests.support import api_fuzz

SUITE_EXAMPLES = 3


@pytest.mark.timeout(7200)
def test_every_route_matches_the_openapi_document(url, fake_fcm, bucket, scale, tried):
    phases = "examples,coverage,fuzzing,stateful" if scale else "examples,fuzzing,stateful"
    tried.append(api_fuzz.checked(url, phases, scale or SUITE_EXAMPLES, deterministic=not scale))
