"""Settings from environment variables, with the same names in Lambda and in the local stack.

Nothing is read at import: `load()` reads the process environment at first use and caches the result.
"""

import os
import re
from functools import lru_cache
from typing import Annotated, Literal
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Meta

from nexmdm.runtime import sigv4
from nexmdm.runtime.errors import Named

_DRIVER = re.compile(r"^postgres(?:ql)?(?:\+\w+)?://")


_BYTE_ORDER_MARK = "\ufeff"
# libpq quotes a URL that it cannot parse in its error, including the password, so only valid URLs may reach it.
_PART = r"(?:[^\s@/?#:\[\]%]|%[0-9A-Fa-f]{2})*"
_AFTER_COLON = r"(?:[^\s@/?#\[\]%]|%[0-9A-Fa-f]{2})*"
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._-]|%2[Ff])*)(?::\d{1,5})?"
_OPTION = r"[a-z_]+=(?:[^\s@#&%=]|%[0-9A-Fa-f]{2})*"
_DATABASE_URL = re.compile(
    rf"[a-z+\d]+://(?:{_PART}(?::{_AFTER_COLON})?@)?{_HOST}(?:,{_HOST})*(?:/{_PART})?(?:\?{_OPTION}(?:&{_OPTION})*)?"
)


class SettingsError(Named):
    """A setting is missing or out of bounds; the text names the variable and the expected value."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename=str.upper):
    """Every setting with its bounds; the environment variable is the field's name in capitals."""

    database_url: (
        Annotated[str, Meta(pattern=r"^postgres(ql)?(\+\w+)?://", description="postgresql://user@host/db")] | None
    ) = None
    # Replaces DATABASE_URL in Lambda: IAM authentication, and TLS with host name verification.
    database_host: Annotated[str, Meta(min_length=1, description="the cluster's or the proxy's endpoint")] | None = None
    database_port: Annotated[int, Meta(ge=1, le=65_535, description="a port")] = 5432
    database_name: Annotated[str, Meta(min_length=1, description="a database's name")] = "nexmdm"
    database_user: Annotated[str, Meta(min_length=1, description="a database user that may log in by IAM")] = (
        "nexmdm_app"
    )
    database_ca_bundle: Annotated[str, Meta(min_length=1, description="a path of PEM certificates")] = (
        "/opt/rds-ca-bundle.pem"
    )
    # Set only for the migrate function: the login that creates the other users.
    database_admin_secret: Annotated[str, Meta(pattern="^arn:", description="a secret's ARN")] | None = None
    aws_region: Annotated[str, Meta(min_length=4, description="a region's name; Lambda sets it")] | None = None
    aws_access_key_id: Annotated[str, Meta(pattern="^[ -~]+$", description="an access key's id")] | None = None
    aws_secret_access_key: Annotated[str, Meta(description="its secret")] | None = None
    aws_session_token: (
        Annotated[str, Meta(pattern="^[ -~]+$", description="the token of temporary credentials")] | None
    ) = None
    powertools_service_name: Annotated[str, Meta(min_length=1, description="the metrics' `service`")] = "nexmdm"
    heartbeat_bucket_seconds: Annotated[int, Meta(ge=1, le=86_400, description="seconds, 1..86400")] = 10
    heartbeat_interval_seconds: Annotated[int, Meta(ge=10, le=86_400, description="seconds, 10..86400")] = 600
    heartbeat_log_sample: Annotated[int, Meta(ge=1, le=1_000_000, description="1 for all, N for one in N")] = 1
    heartbeat_retention_days: Annotated[int, Meta(ge=1, le=90, description="days, 1..90")] = 2
    dispatch_retention_days: Annotated[int, Meta(ge=1, le=90, description="days, 1..90")] = 2
    download_retention_days: Annotated[int, Meta(ge=1, le=3650, description="days, 1..3650")] = 7
    token_retention_days: Annotated[int, Meta(ge=1, le=3650, description="days, 1..3650")] = 30
    event_retention_days: Annotated[int, Meta(ge=1, le=3650, description="days, 1..3650")] = 365
    alert_retention_days: Annotated[int, Meta(ge=1, le=3650, description="days, 1..3650")] = 30
    alert_cooldown_seconds: Annotated[int, Meta(ge=0, le=86_400, description="seconds, 0..86400")] = 1800
    app_background_seconds: Annotated[int, Meta(ge=0, le=86_400, description="seconds, 0..86400")] = 600
    alert_rollout_hours: Annotated[int, Meta(ge=0, le=8760, description="hours, 0..8760")] = 24
    alert_topic_arn: Annotated[str, Meta(pattern="^arn:", description="an SNS topic's ARN")] | None = None
    webhook_url: Annotated[str, Meta(min_length=8, description="https://host/.. or a secret's ARN")] | None = None
    notification_routes: Annotated[str, Meta(description="JSON of named routes or a secret's ARN")] | None = None
    webhook_shape: Annotated[Literal["slack", "discord"], Meta(description="slack or discord")] | None = None
    download_export_bucket: Annotated[str, Meta(min_length=3, description="an S3 bucket's name")] | None = None
    heartbeat_export_bucket: Annotated[str, Meta(min_length=3, description="an S3 bucket's name")] | None = None
    dispatch_lease_seconds: Annotated[int, Meta(ge=1, le=900, description="seconds, 1..900")] = 90
    fcm_timeout_seconds: Annotated[float, Meta(gt=0, le=10, description="seconds, above 0, at most 10")] = 5
    bulk_inline_seconds: Annotated[float, Meta(ge=0, le=20, description="seconds, 0..20")] = 10
    schedules_enabled: Annotated[bool, Meta(description="true or false")] = True
    auto_relaunch: Annotated[bool, Meta(description="true or false")] = False
    misfire_grace_seconds: Annotated[int, Meta(ge=0, le=86_400, description="seconds, 0..86400")] = 300
    fcm_endpoint: Annotated[str, Meta(pattern="^https?://", description="https://host")] = "https://fcm.googleapis.com"
    fcm_service_account: Annotated[str, Meta(description="JSON text, a path or a secret's ARN")] | None = None
    command_hmac_key: Annotated[str, Meta(description="the key that devices hold, or a secret's ARN")] | None = None
    remote_exec_shell_enabled: Annotated[bool, Meta(description="true or false")] = False
    aws_endpoint_url_secrets_manager: Annotated[str, Meta(description="https://host")] | None = None
    aws_endpoint_url_sns: Annotated[str, Meta(description="https://host")] | None = None
    aws_endpoint_url_s3: Annotated[str, Meta(description="https://host")] | None = None
    apk_bucket: Annotated[str, Meta(min_length=3, description="a versioned S3 bucket's name")] | None = None
    apk_max_bytes: Annotated[int, Meta(ge=1, le=2**32 - 1, description="bytes, 1..4294967295")] = 512 * 1024 * 1024
    # The start of the URLs that devices receive; if it is not set, the API Gateway's own domain is used.
    public_url: Annotated[str, Meta(pattern=r"^https?://[^/\s]+\Z", description="https://host")] | None = None
    # How long an installation may stay unfinished before it becomes `unknown`.
    installation_timeout_seconds: Annotated[int, Meta(ge=60, le=2_592_000, description="seconds, 60..2592000")] = 86_400
    agent_package: Annotated[str, Meta(min_length=1, description="an Android package name")] = "com.nexmdm"
    rollout_pause_installations: Annotated[int, Meta(ge=1, description="installations, from 1")] = 20
    rollout_pause_failed_percent: Annotated[int, Meta(ge=0, le=100, description="percent, 0..100")] = 20
    unity_package: Annotated[str, Meta(min_length=1, description="an Android package name")] = "io.unitynodes.unityapp"

    @property
    def dsn(self) -> str:
        """The URL for libpq. With DATABASE_HOST it contains a short-lived login token, so read it for each
        connection."""
        return _DRIVER.sub("postgresql://", self._address)

    @property
    def sqlalchemy_url(self) -> str:
        """The URL for SQLAlchemy, with psycopg2 as driver; SQLAlchemy 2.1 would choose psycopg 3 for a plain URL."""
        return _DRIVER.sub("postgresql+psycopg2://", self._address)

    @property
    def region(self) -> str:
        """The AWS region of the functions.

        Raises:
            SettingsError: AWS_REGION is not set.
        """
        if self.aws_region is None:
            raise SettingsError("AWS_REGION is not set: it should hold a region's name; Lambda sets it")
        return self.aws_region

    @property
    def credentials(self) -> sigv4.Credentials:
        """The role's credentials, which Lambda keeps in the environment.

        Raises:
            SettingsError: there are none.
        """
        if not self.aws_access_key_id or not self.aws_secret_access_key:
            raise SettingsError(
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set: Lambda sets them to the"
                " credentials of the function's role"
            )
        return sigv4.Credentials(self.aws_access_key_id, self.aws_secret_access_key, self.aws_session_token)

    def dsn_of(self, user: str, password: str) -> str:
        """The URL of the database at DATABASE_HOST for another user."""
        tls = urlencode({"sslmode": "verify-full", "sslrootcert": self.database_ca_bundle}, quote_via=quote)
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"postgresql://{who}@{self.database_host}:{self.database_port}/{quote(self.database_name)}?{tls}"

    @property
    def _address(self) -> str:
        if self.database_url:
            return self.database_url
        host, who = self.database_host or "", self.credentials  # `load` requires DATABASE_URL or DATABASE_HOST
        token = sigv4.database_token(host, self.database_port, self.database_user, self.region, who)
        return self.dsn_of(self.database_user, token)


def as_pasted(text: str) -> str:
    """A setting or secret without the white space, byte order mark and quotes that pasting can add."""
    stripped = text.strip().strip(_BYTE_ORDER_MARK).strip()
    quoted = len(stripped) >= 2 and stripped[0] == stripped[-1] and stripped[0] in "\"'"
    return as_pasted(_unquoted(stripped)) if quoted else stripped


def _unquoted(text: str) -> str:
    """The text inside quotes. A JSON string is decoded, so that JSON which was quoted as a whole is JSON again."""
    try:
        return str(msgspec.json.decode(text, type=str))
    except msgspec.DecodeError:
        return text[1:-1]


@lru_cache(maxsize=1)
def load() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: names the variable and the expected value, never the actual one.
    """
    known = {field.encode_name: field for field in msgspec.structs.fields(Settings)}
    given = {name: value for name in known if (value := as_pasted(os.environ.get(name, "")))}
    try:
        config = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise _named(error, given) from None
    if config.database_url and not _DATABASE_URL.fullmatch(config.database_url):
        raise SettingsError(
            "DATABASE_URL is wrong: it should hold postgresql://user@host/db; in a password %40 stands for @, %2F for"
            " / and %25 for %"
        )
    if not config.database_url and not config.database_host:
        raise SettingsError("DATABASE_URL is not set: it should hold postgresql://user@host/db")
    return config


def initialization_type() -> str | None:
    """How Lambda created this environment: on-demand, provisioned-concurrency or snap-start; None outside Lambda."""
    return os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") or None


def response_host() -> str | None:
    """RESPONSE_HOST: the only host outside AWS that the migrate function may respond to, for the rehearsal.

    It is read separately, because the function must also report a failure to load the other settings. The template
    never sets it.
    """
    return os.environ.get("RESPONSE_HOST") or None


def _named(error: msgspec.ValidationError, given: dict[str, str]) -> SettingsError:
    for field in msgspec.structs.fields(Settings):
        name = field.encode_name
        if f"`{name}`" in str(error) or f"$.{name}`" in str(error):
            # The description of an optional setting is on the type inside `| None`.
            types = (field.type, *getattr(field.type, "__args__", ()))
            metas = [meta for type_ in types for meta in getattr(type_, "__metadata__", ())]
            should = "; ".join(meta.description for meta in metas if meta.description)
            return SettingsError(f"{name} is {'wrong' if name in given else 'not set'}: it should hold {should}")
    return SettingsError("A setting is wrong.")
