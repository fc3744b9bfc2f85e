"""docs/settings.md lists every setting of the code, as the code defines it."""

from local import settings_page


def test_every_setting_is_described():
    assert settings_page.undescribed() == set(), "describe every setting in ABOUT in local/settings_page.py"


def test_committed_page_matches_the_generated_one():
    assert settings_page.PATH.read_text() == settings_page.text(), "the page is out of date: run `make settings`"
