"""Secrets that a setting names by the ARN of a Secrets Manager secret; anything else is taken as it is."""

import json
from functools import lru_cache

from nexmdm.runtime import endpoints, settings, sigv4
from nexmdm.runtime.errors import Unavailable
from nexmdm.runtime.settings import SettingsError

_SILENT = "Secrets Manager is not available. Try again."


@lru_cache(maxsize=16)
def resolve(value: str) -> str:
    """The secret behind an ARN, fetched once per environment; a value that is no ARN is the secret itself."""
    return fetch(value) if value.startswith("arn:") else value


def fetch(arn: str) -> str:
    """The secret as it is now.

    Raises:
        SettingsError: there is no such secret, it has no value yet, or this function may not read it.
        Unavailable: Secrets Manager does not answer.
    """
    # Loaded here and not above: 8 ms of a cold start, and a heartbeat without pending commands needs no secret.
    from urllib.error import HTTPError
    from urllib.parse import urlsplit
    from urllib.request import Request, urlopen

    config = settings.load()
    region = arn.split(":")[3]
    url = config.aws_endpoint_url_secrets_manager or endpoints.url("secretsmanager", region)
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "secretsmanager.GetSecretValue"}
    body = json.dumps({"SecretId": arn}).encode()
    signed = sigv4.signed_headers(url, body, headers, "secretsmanager", region, config.credentials)
    try:
        with urlopen(Request(url, body, signed), timeout=5) as answer:  # noqa: S310  https or the local double
            return json.load(answer)["SecretString"]
    except HTTPError as error:
        if error.code < 500 and error.code != 429:
            what = str(json.loads(error.read() or b"{}").get("__type", error.code))
            raise SettingsError(f"The secret {arn} cannot be read: Secrets Manager says {what[:100]}") from None
        raise Unavailable(_SILENT) from error
    except OSError as error:
        # With the host that was asked: a name that does not resolve is what fails a first deploy.
        reason = getattr(error, "reason", error)
        raise Unavailable(_SILENT) from ConnectionError(None, f"{urlsplit(url).netloc}: {reason}")
