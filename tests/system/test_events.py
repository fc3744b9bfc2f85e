"""Every event file belongs to a function that handles it, and every function has an event file."""

from importlib import import_module

import pytest

from local import template
from tests.support import samples
from tests.support.api import CONTEXT
from tests.support.cloudformation import CloudFormation


def test_every_function_has_an_event():
    assert set(template.load().functions) == {samples.function(name) for name in samples.files()}


@pytest.mark.parametrize("name", samples.files())
def test_event_is_handled(name, url, fake_fcm, bucket, webhook, cloudformation: CloudFormation):
    samples.make_real()
    module, _, handler = template.load().function(samples.function(name)).handler.rpartition(".")
    result = getattr(import_module(module), handler)(samples.load(name, cloudformation.url), CONTEXT)
    samples.check(name, result)
