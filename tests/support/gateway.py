"""The local gateway in a process of its own, and the key pair that it accepts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.credentials import Credentials

from tests.local.processes import listening
from tests.support.api import ROOT

KEYS = Credentials("AKIAOFTHESUITE", "a/secret+of=the+suite")


@contextmanager
def gateway(url: str, **environment: str) -> Iterator[str]:
    variables = {
        **os.environ,
        "DATABASE_URL": url,
        "AWS_ACCESS_KEY_ID": KEYS.access_key,
        "AWS_SECRET_ACCESS_KEY": KEYS.secret_key,
        **environment,
    }
    arguments = ["-m", "local.gateway", "--port", "0", "--environments", "2", "--log", os.devnull]
    with listening(*arguments, cwd=ROOT, env=variables) as (_, address):
        yield address
