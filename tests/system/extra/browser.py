"""Debian's Chromium driven by Playwright, so that no browser is downloaded."""

import contextlib
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
DESKTOP, PHONE = (1280, 900), (390, 844)


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    binary = shutil.which("chromium")
    if binary is None:
        pytest.fail("chromium is missing: apt-get install chromium", pytrace=False)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=binary, args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(
    browser: Browser,
    address: str,
    size: tuple[int, int] = DESKTOP,
    scheme: str = "light",
    timezone: str | None = None,
) -> Iterator[tuple[Page, list[str]]]:
    """A page of a fresh profile, and the complaints it logged: errors and violations of its content security policy."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, locale="en-GB", timezone_id=timezone
    )
    complaints: list[str] = []
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    # The page itself shows a failed request; the browser logs it too.
    page.on(
        "console",
        lambda said: said.type == "error" and "Failed to load" not in said.text and complaints.append(said.text),
    )
    page.goto(address)
    page.get_by_role("heading", level=1).wait_for()
    yield page, complaints
    context.close()
