"""Ten thousand devices in the console's table: all can be found, sorted and selected, and a hundred are drawn."""

import pytest
from playwright.sync_api import expect

from tests.system.extra import console_stack
from tests.system.extra.browser import opened

COUNT = 10_000


@pytest.fixture(scope="module")
def page(browser, stack):
    console_stack.many(stack, COUNT)
    with opened(browser, stack.address) as (page, complaints):
        page.goto(f"{stack.console.url}/devices")
        expect(page.get_by_role("status")).to_have_text("10,000 devices", timeout=60_000)
        yield page
        assert complaints == []


def rows(page) -> int:
    return page.locator("tbody tr").count()


def test_one_hundred_devices_are_drawn_per_page(page):
    assert rows(page) == 100
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("101–200 of 10,000")).to_be_visible()
    expect(page.get_by_role("link", name="many-00101")).to_be_visible()
    page.get_by_role("button", name="Previous").click()


def test_one_device_is_found(page):
    page.get_by_label("Search").fill("many-07777")
    expect(page.get_by_role("status")).to_have_text("1 of 10,000 devices")
    assert rows(page) == 1
    page.get_by_label("Search").fill("")
    expect(page.get_by_role("status")).to_have_text("10,000 devices")


def test_devices_are_filtered_and_sorted(page):
    page.get_by_label("Show").select_option("unity_down")
    expect(page.get_by_role("status")).to_have_text("100 of 10,000 devices")
    page.get_by_label("Show").select_option("low_battery")
    page.get_by_role("button", name="Battery").click()
    expect(page.locator("tbody tr").first).to_contain_text("5 %")
    page.get_by_label("Show").select_option("")
    page.get_by_label("Agent").select_option("2.4.3")
    expect(page.get_by_role("status")).to_have_text("1,000 of 10,000 devices")
    page.get_by_label("Agent").select_option("")


def test_all_devices_are_selected(page):
    page.get_by_label("Select all 10,000").check()
    expect(page.get_by_role("button", name="Send command to 10,000")).to_be_visible()


# Milliseconds from each key of a text to the frame that shows its result.
TYPED = """async ({label, text}) => {
  const field = [...document.querySelectorAll("input")].find((each) => each.labels[0]?.textContent.includes(label));
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const took = [];
  for (let n = 1; n <= text.length; n += 1) {
    const begun = performance.now();
    field.value = text.slice(0, n);
    field.dispatchEvent(new Event("input", {bubbles: true}));
    await frame();
    took.push(performance.now() - begun);
  }
  return took;
}"""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def test_speed_is_printed(page, stack, capsys):
    page.goto(f"{stack.console.url}/devices")
    expect(page.get_by_role("status")).to_have_text("10,000 devices", timeout=60_000)
    shown, painted = page.evaluate("performance.now()"), page.evaluate(PAINTED)
    keys = page.evaluate(TYPED, {"label": "Search", "text": "many-07777"})
    expect(page.get_by_role("status")).to_have_text("1 of 10,000 devices")
    with capsys.disabled():
        print(f"\n10,000 devices: painted after {painted:.0f} ms, all there after {shown / 1000:.1f} s", end="; ")
        print(f"a key takes {sorted(keys)[len(keys) // 2]:.0f} ms, the slowest {max(keys):.0f} ms")
