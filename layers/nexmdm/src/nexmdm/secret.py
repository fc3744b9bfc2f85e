"""Secrets that a setting names by the ARN of a Secrets Manager secret; anything else is taken as it is."""

import json
from functools import lru_cache
from urllib.request import Request, urlopen

from nexmdm import settings


@lru_cache(maxsize=16)
def resolve(value: str) -> str:
    """The secret behind an ARN, fetched once per environment; a value that is no ARN is the secret itself.

    boto3 would be 250 ms of a cold start for one signed POST; botocore's signer makes it, urllib sends it.
    """
    if not value.startswith("arn:"):
        return value
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.session import Session

    region = value.split(":")[3]
    config = settings.load()
    # The dual-stack name: the functions' subnets reach AWS over IPv6.
    url = config.aws_endpoint_url_secrets_manager or f"https://secretsmanager.{region}.api.aws/"
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "secretsmanager.GetSecretValue"}
    body = json.dumps({"SecretId": value})
    request = AWSRequest("POST", url, headers, body)
    SigV4Auth(Session().get_credentials(), "secretsmanager", region).add_auth(request)
    with urlopen(Request(url, body.encode(), dict(request.headers)), timeout=5) as answer:  # noqa: S310  https or the local double
        return json.load(answer)["SecretString"]
