"""Requests at and beyond the limits of every value of every route, about 10,000 of them."""

import pytest

from tests.support import api_fuzz


@pytest.mark.timeout(900)
def test_every_route_matches_the_openapi_document_at_its_limits(url, fake_fcm, bucket):
    api_fuzz.checked(url, "coverage", 1, deterministic=True)
