"""Errors name the variable and the expected value; no setting is read before it is needed."""

import pytest
from nexmdm.runtime import settings
from nexmdm.runtime.settings import SettingsError
from psycopg2.extensions import parse_dsn
from sqlalchemy import make_url


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:canary@db.example/fleet?sslmode=verify-full")
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


def test_settings_have_their_documented_defaults():
    config = settings.load()
    assert config.heartbeat_bucket_seconds == 10
    assert config.heartbeat_interval_seconds == 600
    assert config.heartbeat_retention_days == 2
    assert config.unity_package == "io.unitynodes.unityapp"


def test_settings_are_read_once_and_immutable(monkeypatch):
    config = settings.load()
    monkeypatch.setenv("HEARTBEAT_BUCKET_SECONDS", "20")
    assert settings.load() is config
    with pytest.raises(AttributeError):
        config.heartbeat_bucket_seconds = 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://user:canary@db/x"),
        ("DATABASE_URL", "canary"),
        ("HEARTBEAT_BUCKET_SECONDS", "0"),
        ("HEARTBEAT_BUCKET_SECONDS", "86401"),
        ("HEARTBEAT_BUCKET_SECONDS", "ten"),
        ("HEARTBEAT_BUCKET_SECONDS", "1.5"),
        ("HEARTBEAT_INTERVAL_SECONDS", "-1"),
        ("HEARTBEAT_RETENTION_DAYS", "0"),
        ("DATABASE_PORT", "canary"),
        ("DATABASE_ADMIN_SECRET", "canary"),
    ],
)
def test_invalid_setting_is_named_with_the_expected_value_and_without_its_own(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        settings.load()
    assert str(raised.value).startswith(f"{name} is wrong: it should hold ")
    assert "canary" not in str(raised.value)
    (should,) = [
        meta.description
        for field in settings.msgspec.structs.fields(settings.Settings)
        if field.encode_name == name
        for type_ in (field.type, *getattr(field.type, "__args__", ()))
        for meta in getattr(type_, "__metadata__", ())
    ]
    assert should in str(raised.value)


@pytest.mark.parametrize("value", [None, ""])
def test_missing_setting_is_named(monkeypatch, value):
    if value is None:
        monkeypatch.delenv("DATABASE_URL")
    else:
        monkeypatch.setenv("DATABASE_URL", value)
    with pytest.raises(SettingsError, match=r"^DATABASE_URL is not set: it should hold postgresql://"):
        settings.load()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg"])
def test_every_postgresql_scheme_means_psycopg2(monkeypatch, scheme):
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://u@h/d")
    assert settings.load().dsn == "postgresql://u@h/d"
    assert settings.load().sqlalchemy_url == "postgresql+psycopg2://u@h/d"


def test_every_setting_describes_its_value():
    for field in settings.msgspec.structs.fields(settings.Settings):
        annotated = [field.type, *getattr(field.type, "__args__", ())]
        described = [meta.description for type_ in annotated for meta in getattr(type_, "__metadata__", ())]
        assert any(described), field.encode_name


def in_lambda(monkeypatch):
    monkeypatch.delenv("DATABASE_URL")
    for name, value in {
        "DATABASE_HOST": "nexmdm.cluster-abc.eu-west-1.rds.amazonaws.com",
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "canary",
        "AWS_SESSION_TOKEN": "session/token+==",
    }.items():
        monkeypatch.setenv(name, value)


def test_database_endpoint_replaces_the_url(monkeypatch):
    in_lambda(monkeypatch)
    parts = parse_dsn(settings.load().dsn)
    token = parts.pop("password")
    assert parts == {
        "host": "nexmdm.cluster-abc.eu-west-1.rds.amazonaws.com",
        "port": "5432",
        "dbname": "nexmdm",
        "user": "nexmdm_app",
        "sslmode": "verify-full",
        "sslrootcert": "/opt/rds-ca-bundle.pem",
    }
    assert token.startswith("nexmdm.cluster-abc.eu-west-1.rds.amazonaws.com:5432/?Action=connect&DBUser=nexmdm_app&")
    assert "X-Amz-Security-Token=session%2Ftoken%2B%3D%3D" in token
    assert make_url(settings.load().sqlalchemy_url).password[:200] == token[:200]
    assert "canary" not in settings.load().dsn


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_REGION"])
def test_database_endpoint_without_credentials_or_region_names_them(monkeypatch, missing):
    in_lambda(monkeypatch)
    monkeypatch.delenv(missing)
    with pytest.raises(SettingsError, match=f"^{missing} "):
        settings.load().dsn  # noqa: B018


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:can/ary@host/db",
        "postgresql://user:can#ary@host/db",
        "postgresql://user:can?ary@host/db",
        "postgresql://user:can@ary@host/db",
        "postgresql://user:can%ary@host/db",
        "postgresql://user:can ary@host/db",
        "postgresql://user:can\nary@host/db",
        "postgresql://user:can[ary@host/db",
        "postgresql://user:canary/db",
        "postgresql://user:canary",
        "postgresql://user@host/db?password=can@ary",
        "postgresql://user@host/db?canary",
        "postgresql://user@host/db?password=can=ary",
        "postgresql://user@host:canary/db",
        f"postgresql://{'canary' * 5000}@@",
        f"postgresql://{'a' * 5000} canary",
        f"postgresql://h/?{'a=canary&' * 5000}%",
    ],
)
def test_url_that_libpq_would_quote_is_refused(monkeypatch, url):
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(SettingsError, match="DATABASE_URL is wrong: it should hold postgresql://") as raised:
        settings.load()
    assert "ary" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:p%40ss%2Fword%25@host:5432/db?sslmode=verify-full&sslrootcert=/opt/ca.pem",
        "postgresql://postgres@/db?host=%2Ftmp%2Fsockets",
        "postgresql://postgres@%2Ftmp%2Fsockets/db",
        "postgresql://u:a:b$c!d+e&f*(g)@h/d",
        "postgresql://[::1]:5432/db",
        "postgresql://a:1,b:2/db?target_session_attrs=read-write",
        "postgresql:///db",
        "postgresql://h",
    ],
)
@pytest.mark.parametrize("form", ["{}", "{}\n", "\ufeff{}", '"{}"', "' {} '\r\n"])
def test_url_is_read_in_every_pasted_form(monkeypatch, url, form):
    monkeypatch.setenv("DATABASE_URL", form.format(url))
    assert settings.load().dsn == url
    parse_dsn(url)
