"""Every event file is for a function and is answered; every function has one."""

from importlib import import_module

import pytest

from local import template
from tests.support import samples
from tests.support.api import CONTEXT
from tests.support.cloudformation import CloudFormation


def test_every_function_has_an_event():
    assert set(template.load().functions) == {samples.function(name) for name in samples.files()}


@pytest.mark.parametrize("name", samples.files())
def test_it_is_answered(name, url, fake_fcm, bucket, webhook, cloudformation: CloudFormation):
    samples.make_real()
    module, _, handler = template.load().function(samples.function(name)).handler.rpartition(".")
    result = getattr(import_module(module), handler)(samples.load(name, cloudformation.url), CONTEXT)
    samples.check(name, result)
