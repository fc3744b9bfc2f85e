"""A service account for the fake, which is not known to Google."""

import json
from functools import cache

PROJECT = "nexmdm-local"


def service_account(url: str, project: str = PROJECT) -> str:
    """The JSON of a service account whose token endpoint is the fake at `url`."""
    return json.dumps(
        {
            "type": "service_account",
            "project_id": project,
            "private_key_id": "of-the-double",
            "private_key": _private_key(),
            "client_email": f"double@{project}.iam.gserviceaccount.com",
            "client_id": "0",
            "token_uri": f"{url}/token",
        }
    )


@cache
def _private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
