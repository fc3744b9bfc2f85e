"""The host names of AWS in code, template and docs are those of each service's own documentation."""

import json
import re
import socket
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from nexmdm.alerts.notifications import Notification
from nexmdm.builds import urls
from nexmdm.builds.build import StoredFile
from nexmdm.retention import files
from nexmdm.runtime import endpoints, secrets, settings
from nexmdm.runtime.errors import Unavailable
from nexmdm.runtime.settings import SettingsError

from functions.apk_builds import storage
from functions.watch import topic
from tests.support.api import ROOT

# Written out as on the pages that endpoints.py names.
DOCUMENTED = {
    "eu-west-1": {
        "secretsmanager": "secretsmanager.eu-west-1.amazonaws.com",
        "sns": "sns.eu-west-1.amazonaws.com",
        "s3": "s3.eu-west-1.amazonaws.com",
        "execute-api": "execute-api.eu-west-1.amazonaws.com",
    },
    "us-east-1": {
        "secretsmanager": "secretsmanager.us-east-1.amazonaws.com",
        "sns": "sns.us-east-1.amazonaws.com",
        "s3": "s3.us-east-1.amazonaws.com",
        "execute-api": "execute-api.us-east-1.amazonaws.com",
    },
    "ap-northeast-1": {
        "secretsmanager": "secretsmanager.ap-northeast-1.amazonaws.com",
        "sns": "sns.ap-northeast-1.amazonaws.com",
        "s3": "s3.ap-northeast-1.amazonaws.com",
        "execute-api": "execute-api.ap-northeast-1.amazonaws.com",
    },
    "cn-north-1": {
        "secretsmanager": "secretsmanager.cn-north-1.amazonaws.com.cn",
        "sns": "sns.cn-north-1.amazonaws.com.cn",
        "s3": "s3.cn-north-1.amazonaws.com.cn",
        "execute-api": "execute-api.cn-north-1.amazonaws.com.cn",
    },
    "us-gov-west-1": {
        "secretsmanager": "secretsmanager.us-gov-west-1.amazonaws.com",
        "sns": "sns.us-gov-west-1.amazonaws.com",
        "s3": "s3.us-gov-west-1.amazonaws.com",
        "execute-api": "execute-api.us-gov-west-1.amazonaws.com",
    },
}
REGIONS = sorted(DOCUMENTED)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that are looked up. Every lookup fails, as in a network without DNS."""
    hosts: list[str] = []

    def getaddrinfo(host: str, *_: object, **__: object) -> None:
        hosts.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return hosts


@pytest.fixture(params=REGIONS)
def region(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """The region, together with the settings of a function that runs in it."""
    for name, value in {
        "DATABASE_URL": "postgresql:///nothing",
        "AWS_REGION": request.param,
        "AWS_DEFAULT_REGION": request.param,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "APK_BUCKET": "builds",
        "DOWNLOAD_EXPORT_BUCKET": "downloads",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",  # botocore reads this variable; it must have no effect
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_SNS", "AWS_ENDPOINT_URL_SECRETS_MANAGER"):
        monkeypatch.delenv(name, raising=False)
    forget()
    yield request.param
    forget()


def forget() -> None:
    for cached in (settings.load, secrets.resolve, urls._credentials, storage._client, topic._sns, files._s3):
        cached.cache_clear()


def test_endpoints_match_the_documentation():
    for name, hosts in DOCUMENTED.items():
        assert {service: endpoints.host(service, name) for service in hosts} == hosts
        assert endpoints.url("sns", name) == f"https://{hosts['sns']}/"


def test_every_endpoint_names_its_documentation_page():
    for service, documented in endpoints.NAMES.items():
        assert urlsplit(documented.page).netloc == "docs.aws.amazon.com", service
        assert documented.form.startswith(f"{service}.")


@pytest.mark.parametrize("name", ["us-iso-east-1", "eusc-de-east-1", "us-isob-east-1", "eu-west-1.api.aws", "", "x/y"])
def test_region_without_documented_endpoints_is_refused(name: str):
    with pytest.raises(SettingsError, match="endpoints"):
        endpoints.host("sns", name)


def test_secrets_are_read_from_the_documented_host(region: str, asked: list[str]):
    with pytest.raises(Unavailable) as raised:
        secrets.fetch("COMMAND_HMAC_KEY", f"arn:aws:secretsmanager:{region}:123456789012:secret:hmac-abcdef")
    assert asked == [DOCUMENTED[region]["secretsmanager"]]
    assert str(raised.value.__cause__).startswith(f"{asked[0]}: ")


def test_alerts_are_published_at_the_documented_host(region: str, asked: list[str]):
    notification = Notification("claim", "nexmdm", "s", "t", [], [])
    config = settings.load()
    told = SimpleNamespace(
        alert_topic_arn=f"arn:aws:sns:{region}:123456789012:alarms", aws_endpoint_url_sns=config.aws_endpoint_url_sns
    )
    with pytest.raises(topic.NotTaken):
        topic.publish(told, notification)
    assert set(asked) == {DOCUMENTED[region]["sns"]}


def test_builds_are_read_and_their_urls_signed_at_the_documented_host(region: str, asked: list[str]):
    expected = f"builds.{DOCUMENTED[region]['s3']}"
    with pytest.raises(Unavailable), storage.upload(settings.load(), "apks/1.apk"):
        pass
    assert set(asked) == {expected}
    file = StoredFile(
        key="apks/1.apk", object_version="v", name="app.apk", size=1, sha256="00" * 32, signer_fingerprint="11" * 32
    )
    signed = [urls.download_address(settings.load(), file), urls.upload_address(settings.load(), file)[0]]
    assert {urlsplit(url).netloc for url in signed} == {expected}
    assert all(f"%2F{region}%2Fs3%2F" in url for url in signed)


def test_downloads_are_exported_at_the_documented_host(region: str, asked: list[str]):
    from botocore.exceptions import EndpointConnectionError

    client = files._s3(endpoints.url("s3", settings.load().region))
    with pytest.raises(EndpointConnectionError):
        client.put_object(Bucket="downloads", Key="k", Body=b"")
    assert {host.removeprefix("downloads.") for host in asked} == {DOCUMENTED[region]["s3"]}


# Names that are not hosts of requests: audiences and principals in policies, and names of clients.
NO_HOSTS = re.compile(
    r"sts\.amazonaws\.com"  # the audience of GitHub's OIDC token
    r"|(lambda|rds|scheduler|events|sns|cloudwatch|apigateway|cloudformation)\.amazonaws\.com"  # service principals
    r"|com\.amazonaws\..*"  # the name of a VPC endpoint's service
)
# A host that belongs to no regional service: the certificates of RDS (AuroraUserGuide, UsingWithRDS.SSL).
CERTIFICATES = re.compile(
    r"truststore\.pki\.(us-gov-west-1\.)?rds\.amazonaws\.com|rds-truststore\.s3\.cn-north-1\.amazonaws\.com\.cn"
)
HOST = re.compile(
    r"[\w.{}$:*-]*\b(?:amazonaws\.com(?:\.cn)?|api\.aws|api\.amazonwebservices\.com\.cn|AWS::URLSuffix\})"
)
PLACE = r"(?:[a-z]{2}(?:-gov)?-[a-z]+-\d|\$?\{[\w:.]+\}|REGION)"


def sources() -> list[str]:
    kept = [ROOT / name for name in ("template.yaml", "samconfig.toml", "Makefile", "README.md", "SECURITY.md")]
    for folder, pattern in (
        ("functions", "*.py"), ("layers/nexmdm/src", "*.py"), ("local", "*.py"), ("migrations", "*.py"),
        ("cli/src", "*.py"), ("docs", "*.md"), (".github", "*.yml"),
    ):  # fmt: skip
        kept += sorted((ROOT / folder).rglob(pattern))
    return [str(path) for path in kept if path.exists() and path.name != "endpoints.py"]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path).removeprefix(f"{ROOT}/"))
def test_every_host_that_a_source_names_is_documented(path: str):
    services = "|".join(endpoints.NAMES)
    form = re.compile(
        rf"(?:[\w{{}}$.*-]+\.)?(?:{services})\.{PLACE}\.(?:amazonaws\.com(?:\.cn)?|\$\{{AWS::URLSuffix\}})"
    )
    with open(path) as file:
        for number, line in enumerate(file, 1):
            for named in HOST.findall(line):
                name = named.lstrip(".:")
                known = form.fullmatch(name) or NO_HOSTS.fullmatch(name) or CERTIFICATES.fullmatch(name)
                assert known or name in ("amazonaws.com", "amazonaws.com.cn"), (
                    f"{path}:{number}: {named} is not documented"
                )


def test_host_pattern_finds_a_host():
    assert HOST.findall('f"https://secretsmanager.{region}.api.aws/"') == ["secretsmanager.{region}.api.aws"]
    assert json.dumps(HOST.findall("https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}")) == json.dumps(
        ["${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}"]
    )
