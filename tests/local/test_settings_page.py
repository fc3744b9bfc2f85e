"""docs/settings.md has every setting of the code, as the code has it."""

from local import settings_page


def test_every_setting_is_described():
    assert settings_page.undescribed() == set(), "add it to ABOUT in local/settings_page.py"


def test_the_committed_page_is_the_generated_one():
    assert settings_page.PATH.read_text() == settings_page.text(), "it has drifted: run `make settings`"
