"""The host names of AWS that this system uses: each as the service's own documentation gives it, with the page.

The functions' subnets reach AWS by IPv6, so a name must answer there. botocore's `use_dualstack_endpoint` is no proof:
some versions make `SERVICE.REGION.api.aws` of every service by a general rule, whether or not the name exists.
"""

import re
from typing import NamedTuple

from nexmdm.runtime.settings import SettingsError

# The partitions whose names the pages below give. Others (us-iso, eusc, ...) have names of their own.
_SUFFIXES = {"aws": "amazonaws.com", "aws-cn": "amazonaws.com.cn", "aws-us-gov": "amazonaws.com"}
_REGION = re.compile(r"(?P<place>us-gov|[a-z]{2})-[a-z]+-\d")


class Documented(NamedTuple):
    """form: with {region} and {suffix}. reach: how a function, or who else, gets there. page: where AWS says so."""

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
        SettingsError: no page of AWS gives a name for that region.
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
