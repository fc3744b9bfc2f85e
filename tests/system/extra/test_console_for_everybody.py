"""The console's page by keyboard, by screen reader, on a phone and in dark mode, and its links."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.system.extra.browser import DESKTOP, PHONE, opened
from tests.system.extra.console_page import dialog, row, visit

PAGES = (
    "/", "/devices", "/apps", "/groups", "/commands", "/schedules", "/builds", "/enroll", "/alerts", "/alerts/rules",
    "/alerts/mutes", "/events", "/api-reference",
)  # fmt: skip


def test_page_can_be_used_by_keyboard_alone(page, stack):
    stack.register("keys")
    visit(page, "/devices?q=keys")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Last seen").press("Enter")
    expect(page.get_by_role("columnheader", name="Last seen")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("button", name="Last seen").press("Enter")
    expect(page.get_by_role("columnheader", name="Last seen")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("link", name="keys").press("Enter")
    expect(page.get_by_role("heading", level=1, name="keys")).to_be_focused()
    page.get_by_role("button", name="Rename").press("Enter")
    expect(dialog(page)).to_be_visible()
    for _ in range(6):
        page.keyboard.press("Tab")
        assert page.evaluate("!document.activeElement.closest('main') || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    expect(dialog(page)).to_be_hidden()
    expect(page.get_by_role("button", name="Rename")).to_be_focused()


def test_url_restores_the_view(page, stack):
    stack.register("deep")
    visit(page, "/devices?q=deep&sort=-alias&show=silent")
    expect(page.get_by_label("Search")).to_have_value("deep")
    expect(page.get_by_label("Show")).to_have_value("silent")
    expect(page.get_by_role("columnheader", name="Device")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("link", name="deep").click()
    page.go_back()
    expect(page.get_by_label("Search")).to_have_value("deep")


def test_address_that_is_not_text_says_that_there_is_no_such_page(page):
    visit(page, "/devices/%E0%A4%A")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not found")


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_every_page_is_accessible(browser, stack, size, scheme):
    """Checks axe's rules for WCAG 2.1 A and AA, including contrast, and that nothing is wider than the screen."""
    device_id, token = stack.register(f"seen-{size[0]}-{scheme}")
    beat = {"battery_pct": 12, "temp_c": 31.5, "ram_used_mb": 900, "signal_dbm": -60, "unity_running": False}
    stack.api.post(
        "/v1/heartbeat", json=beat, headers={"Authorization": f"Bearer {token}"}, auth=None
    ).raise_for_status()
    stack.call(
        "POST", f"/v1/devices/{device_id}/commands", {"action": "ping", "request_id": f"seen-{size[0]}-{scheme}"}
    )
    with opened(browser, stack.address, size, scheme) as (page, complaints):
        for place in (*PAGES, f"/devices/{device_id}", f"/commands/seen-{size[0]}-{scheme}"):
            visit(page, place)
            accessible(page, place)
        visit(page, f"/devices/{device_id}")
        page.get_by_role("button", name="Send command").click()
        dialog(page).get_by_label("Action").select_option("remote_control")
        accessible(page, "the dialog")
        for place, button in (
            ("/alerts/rules", "New rule"),
            ("/alerts/mutes", "New mute"),
            ("/schedules", "New schedule"),
        ):
            visit(page, place)
            page.get_by_role("button", name=button).click()
            expect(dialog(page).get_by_role("status")).to_contain_text("device")
            accessible(page, button)
        assert complaints == []


def accessible(page, place: str) -> None:
    expect(page.get_by_text("loading …")).to_have_count(0)
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]})
    assert found.violations_count == 0, f"{place}: {found.generate_report()}"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{place} is wider than the screen"


def test_theme_is_kept(page):
    page.get_by_label("Theme").select_option("dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    page.get_by_role("heading", level=1).wait_for()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    page.get_by_label("Theme").select_option("light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_alerts_are_shown(page, stack):
    device_id, _ = stack.register("alarming")
    alert = {
        "alert_id": 1,
        "device_id": device_id,
        "alias": "alarming",
        "condition": "low_battery",
        "since": "2026-01-01T00:00:00Z",
        "notified_at": None,
        "recovered_at": None,
    }
    page.route("**/v1/alerts?*", lambda route: route.fulfill(json={"items": [alert], "next_cursor": None}))
    visit(page, "/")
    page.get_by_role("link", name="Alerts (1)").click()
    expect(row(page, "alarming")).to_contain_text("Low battery")
    page.get_by_role("link", name="alarming").click()
    expect(page.get_by_role("region", name="Now")).to_contain_text("Low battery")
    page.unroute("**/v1/alerts?*")
    page.route("**/v1/alerts?*", lambda route: route.fulfill(status=404, json={"message": "Not Found"}))
    visit(page, "/")
    expect(page.get_by_text("Agent versions")).to_be_visible()
    expect(page.get_by_role("link", name="Alerts")).to_have_count(0)


REFERENCE = {
    "openapi": "3.1.0",
    "info": {"title": "Of a test", "version": "7", "description": "Reads `code`."},
    "paths": {
        "/v1/things/{id}": {
            "post": {
                "operationId": "make_thing",
                "summary": "Make a thing",
                "parameters": [{"name": "id", "in": "path", "schema": {"type": "string", "maxLength": 9}}],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Tree"}}}},
                "responses": {"201": {"description": "made"}, "422": {"description": "no thing"}},
            }
        }
    },
    "components": {
        "schemas": {
            "Tree": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "size": {"type": "integer", "minimum": 1, "default": 3},
                    "branches": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}},
                },
            }
        }
    },
}  # fmt: skip


def test_api_reference_is_shown(page):
    page.route("**/assets/openapi.json", lambda route: route.fulfill(json=REFERENCE))
    visit(page, "/api-reference#make_thing")
    expect(page.get_by_text("in path string, at most 9 characters")).to_be_visible()
    expect(page.get_by_text("integer, from 1, default 3")).to_be_visible()
    expect(page.get_by_text("Tree, as above")).to_be_visible()
    expect(page.get_by_text("no thing")).to_be_visible()
    page.get_by_label("Search").fill("nothing like it")
    expect(page.get_by_text("0 operations")).to_be_visible()
