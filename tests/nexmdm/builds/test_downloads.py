"""`record_apk_download`, called as in the quick start."""

from collections.abc import Iterator

import pytest
from nexmdm.persistence import record_apk_download
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database
from nexmdm.runtime.errors import Invalid, NoSuchBuild, NotFound
from nexmdm.schema.models import ApkDownloadEvent
from sqlalchemy import create_engine
from sqlalchemy.orm import Session


@pytest.fixture
def session(url: str) -> Iterator[Session]:
    engine = create_engine(settings.load().sqlalchemy_url)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def build_id(db: Database) -> int:
    """A build that a previous server left behind."""
    return db.execute("""
        INSERT INTO apk_versions (version_name, version_code, file_path, file_size, state)
        VALUES ('1.0', 1, '/apk/1', 1, 'adopted') RETURNING id
    """)[0]["id"]


def test_record_apk_download_returns_the_event(session: Session, build_id: int, db: Database):
    event = record_apk_download(session, build_id=build_id, source="ci", admin_user="ci", ip="192.0.2.1")
    assert isinstance(event, ApkDownloadEvent)
    assert (event.build_id, event.source, event.admin_user, event.ip) == (build_id, "ci", "ci", "192.0.2.1")
    assert event.ts is not None
    # The event is durable when the call returns: another connection sees it.
    assert db.execute("SELECT id FROM apk_download_events") == [{"id": event.id}]


def test_download_with_an_enrollment_token_names_the_token(session: Session, build_id: int, db: Database):
    db.execute("""
        INSERT INTO enrollment_tokens (token_id, alias, token_hash, scope, expires_at)
        VALUES ('t-1', 'phones', 'hash', 'apk_download', now() + interval '1 day')
    """)
    event = record_apk_download(session, build_id=build_id, source="enrollment", token_id="t-1", ip=None)
    assert (event.token_id, event.admin_user) == ("t-1", None)


def test_invalid_download_is_refused_with_its_reason(session: Session, build_id: int, db: Database):
    with pytest.raises(NoSuchBuild, match="no build 999"):
        record_apk_download(session, build_id=999, source="ci", admin_user="ci")
    with pytest.raises(NotFound, match="no enrollment token 't-2'"):
        record_apk_download(session, build_id=build_id, source="enrollment", token_id="t-2")
    for who in ({}, {"token_id": "t-1", "admin_user": "ci"}):
        with pytest.raises(Invalid, match="exactly one of token_id and admin_user"):
            record_apk_download(session, build_id=build_id, source="ci", **who)
    with pytest.raises(Invalid, match="must be enrollment, manual or ci"):
        record_apk_download(session, build_id=build_id, source="usb", admin_user="ci")
    assert db.execute("SELECT count(*) AS n FROM apk_download_events") == [{"n": 0}]
