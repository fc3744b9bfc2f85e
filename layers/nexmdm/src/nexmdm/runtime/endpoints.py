"""The AWS host names that NexMDM uses, each as documented by AWS, with the page.

The functions' subnets reach AWS over IPv6, so each name must resolve to IPv6. botocore's `use_dualstack_endpoint` does
not prove that: some versions build `SERVICE.REGION.api.aws` for every service, whether or not the name exists.
"""

import re
from typing import NamedTuple

from nexmdm.runtime.settings import SettingsError

# The partitions that the pages below cover. Others (us-iso, eusc, ...) have different names.
_SUFFIXES = {"aws": "amazonaws.com", "aws-cn": "amazonaws.com.cn", "aws-us-gov": "amazonaws.com"}
_REGION = re.compile(r"(?P<place>us-gov|[a-z]{2})-[a-z]+-\d")


class Documented(NamedTuple):
    """form: with {region} and {suffix}. reach: how functions or others reach it. page: AWS's documentation."""

    form: str
    reach: str
    page: str


NAMES = {
    "secretsmanager": Documented(
        "secretsmanager.{region}.{suffix}",
        "IPv6 and IPv4: the ordinary name is the dual-stack one",
        "https://docs.aws.amazon.com/secretsmanager/latest/userguide/ip-access.html",
    ),
    "sns": Documented(
        "sns.{region}.{suffix}",
        "IPv6 and IPv4: the ordinary name is the dual-stack one",
        "https://docs.aws.amazon.com/sns/latest/dg/sns-dual-stack.html",
    ),
    "s3": Documented(
        "s3.{region}.{suffix}",
        "IPv4, through the VPC's gateway endpoint: the ordinary name; devices get there over the internet",
        "https://docs.aws.amazon.com/vpc/latest/privatelink/vpc-endpoints-s3.html",
    ),
    "execute-api": Documented(
        "execute-api.{region}.{suffix}",
        "called by devices and operators, from outside; template.yaml writes it with AWS::URLSuffix",
        "https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-publish.html",
    ),
    "rds": Documented(
        "rds.{region}.{suffix}",
        "a database's name, which RDS gives; a login is signed for it as it is and asks no other host",
        "https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/Aurora.Overview.Endpoints.html",
    ),
}


def host(service: str, region: str) -> str:
    """The host name of a service in a region.

    Raises:
        SettingsError: no name is documented for that region.
    """
    return NAMES[service].form.format(region=region, suffix=_SUFFIXES[_partition(region)])


def url(service: str, region: str) -> str:
    """The same, as the URL of requests to it."""
    return f"https://{host(service, region)}/"


def _partition(region: str) -> str:
    match = _REGION.fullmatch(region)
    if not match or region.startswith("us-iso"):
        raise SettingsError(
            f"AWS_REGION is {region!r}: its host names are not in nexmdm.runtime.endpoints; add them with AWS's page"
        )
    return {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(match["place"], "aws")
