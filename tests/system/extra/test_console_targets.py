"""Selecting devices in the browser: labels, the selector field, groups, and dialogs bound to the set they showed."""

import re

import pytest
from playwright.sync_api import expect

from tests.system.extra.console_page import dialog, row, visit

FLEET = {
    "pilot-1": {"stage": "pilot", "site": "berlin", "role": "till"},
    "pilot-2": {"stage": "pilot", "site": "bonn", "role": "till"},
    "till-1": {"site": "berlin", "role": "till"},
    "till-2": {"site": "hamburg", "role": "till"},
    "spare-1": {"role": "spare"},
}


@pytest.fixture(scope="module")
def fleet(stack) -> dict[str, str]:
    ids = {}
    for alias, labels in FLEET.items():
        ids[alias] = stack.register(alias)[0]
        stack.call("PATCH", f"/v1/devices/{ids[alias]}", {"labels": labels})
    return ids


def members(stack, request_id: str) -> set[str]:
    return {item["device_id"] for item in stack.call("GET", f"/v1/commands?batch={request_id}&limit=100")["items"]}


def latest(stack) -> str:
    """The request_id of the latest bulk command."""
    return stack.call("GET", "/v1/commands?limit=1")["items"][0]["batch_id"]


def test_selector_is_suggested_and_finds_devices(page, fleet):
    visit(page, "/devices")
    field = page.get_by_role("combobox", name="Labels")
    field.press_sequentially("si")
    expect(page.get_by_role("option", name=re.compile("^site"))).to_be_visible()
    field.press("ArrowDown")
    field.press("Enter")
    expect(field).to_have_value("site")
    field.press_sequentially("=b")
    page.get_by_role("option", name=re.compile("site=berlin")).click()
    field.press_sequentially(",!stage")
    expect(row(page, "till-1")).to_be_visible()
    expect(page.get_by_role("status").first).to_contain_text("1 device")
    # The URL of the current view can be shared.
    expect(page).to_have_url(re.compile(r"selector=site%3Dberlin%2C%21stage"))


def test_selector_error_is_shown_at_the_field(page, fleet):
    visit(page, "/groups")
    page.get_by_role("button", name="New group").click()
    field = dialog(page).get_by_role("combobox", name="Labels")
    field.fill("site=berlin,=x")
    expect(dialog(page).get_by_role("alert")).to_contain_text("column 13")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(dialog(page).get_by_role("button", name="Save the group")).to_be_disabled()
    field.fill("site=berlin")
    expect(dialog(page).get_by_role("status")).to_contain_text("2 devices")


def test_enter_saves_the_selector_that_was_typed(page, stack, fleet):
    visit(page, "/alerts/mutes")
    page.get_by_role("button", name="New mute").click()
    dialog(page).get_by_label("Reason").fill("the hall is rewired")
    expect(dialog(page).get_by_role("button", name="Mute", exact=True)).to_be_enabled()
    field = dialog(page).get_by_role("combobox", name="Labels")
    field.fill("role=spare")
    field.press("Enter")  # the devices of this selector are not shown yet
    expect(dialog(page).get_by_role("status")).to_contain_text("1 device spare-1")
    assert stack.call("GET", "/v1/mutes")["items"] == []
    field.press("Enter")
    expect(row(page, "the hall is rewired")).to_contain_text("role=spare")
    assert [mute["filter"] for mute in stack.call("GET", "/v1/mutes")["items"]] == [{"selector": "role=spare"}]


def test_enter_does_not_save_the_earlier_selector_of_a_group(page, stack, fleet):
    stack.call("PUT", "/v1/groups/edited", {"filter": {"selector": "role=till"}})
    visit(page, "/groups")
    page.get_by_role("button", name="Edit edited").click()
    expect(dialog(page).get_by_role("button", name="Save the group")).to_be_enabled()
    field = dialog(page).get_by_role("combobox", name="Labels")
    field.fill("role=spare")
    field.press("Enter")
    expect(dialog(page).get_by_role("status")).to_contain_text("1 device spare-1")
    field.press("Enter")
    expect(dialog(page)).to_have_count(0)
    assert stack.call("GET", "/v1/groups/edited")["filter"] == {"selector": "role=spare"}


def test_prefix_typed_right_after_a_selector_is_kept(page, fleet):
    visit(page, "/groups")
    page.get_by_role("button", name="New group").click()
    dialog(page).get_by_role("combobox", name="Labels").fill("site=berlin")
    prefix = dialog(page).get_by_label("Alias begins with")
    prefix.fill("pilot")
    expect(dialog(page).get_by_role("status")).to_contain_text("1 device pilot-1")
    expect(prefix).to_have_value("pilot")


def test_pilot_rollout_to_a_group(page, stack, fleet):
    visit(page, "/groups")
    page.get_by_role("button", name="New group").click()
    dialog(page).get_by_label("Name").fill("pilot")
    dialog(page).get_by_role("combobox", name="Labels").fill("stage=pilot")
    expect(dialog(page).get_by_role("status")).to_contain_text("2 devices pilot-1, pilot-2")
    dialog(page).get_by_role("button", name="Save the group").click()
    expect(row(page, "pilot")).to_contain_text("stage=pilot")
    page.get_by_role("link", name="pilot", exact=True).click()
    expect(row(page, "pilot-1")).to_be_visible()
    page.get_by_role("button", name="Send command to all of them").click()
    expect(dialog(page).get_by_role("status").first).to_contain_text("2 devices pilot-1, pilot-2")
    dialog(page).get_by_role("button", name="Send ping to 2 devices").click()
    expect(dialog(page)).to_contain_text("ping was accepted")
    assert members(stack, latest(stack)) == {fleet["pilot-1"], fleet["pilot-2"]}


def test_excluding_selector_and_a_changed_set(page, stack, fleet):
    visit(page, "/devices?selector=role!%3Dspare,role")
    expect(row(page, "till-1")).to_be_visible()
    page.get_by_role("button", name="Send command to all of them").click()
    send = dialog(page).get_by_role("button", name="Send ping to 4 devices")
    expect(send).to_be_enabled()
    before = latest(stack)
    stack.call("PATCH", f"/v1/devices/{fleet['till-2']}", {"labels": {"role": "spare"}})
    send.click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("selects other devices")
    assert latest(stack) == before
    dialog(page).get_by_role("button", name="Try again: Send ping to 3 devices").click()
    expect(dialog(page)).to_contain_text("ping was accepted")
    assert members(stack, latest(stack)) == {fleet["pilot-1"], fleet["pilot-2"], fleet["till-1"]}
    stack.call("PATCH", f"/v1/devices/{fleet['till-2']}", {"labels": {"role": "till"}})


def test_command_to_all_silent_tills(page, stack, fleet):
    visit(page, "/?selector=role%3Dtill")
    page.get_by_role("link", name=re.compile("Silent 4")).click()
    expect(row(page, "till-2")).to_be_visible()
    expect(page.get_by_role("combobox", name="Labels")).to_have_value("role=till")
    expect(page.get_by_label("Show")).to_have_value("silent")


def test_link_to_all_devices_empties_the_search(page, fleet):
    visit(page, "/devices")
    search = page.get_by_role("searchbox", name="Search")
    search.fill("till-1")
    expect(row(page, "spare-1")).to_have_count(0)
    expect(page).to_have_url(re.compile("q=till-1"))
    page.get_by_role("link", name="Devices", exact=True).click()
    expect(row(page, "spare-1")).to_be_visible()
    expect(search).to_have_value("")


def test_version_links_of_a_filtered_fleet_keep_the_filter(page, fleet):
    visit(page, "/?selector=role%3Dspare")
    page.get_by_role("region", name="Agent versions").get_by_role("link", name="unknown").click()
    expect(row(page, "spare-1")).to_be_visible()
    expect(page.get_by_role("combobox", name="Labels")).to_have_value("role=spare")


def test_labels_of_selected_devices_are_changed(page, stack, fleet):
    visit(page, "/devices?q=till-")
    page.get_by_label("Select till-1").check()
    page.get_by_label("Select till-2").check()
    page.get_by_role("button", name="Edit labels").click()
    dialog(page).get_by_label("Labels").fill("floor=3\nsite-")
    dialog(page).get_by_role("button", name="Change labels of 2 devices").click()
    expect(row(page, "till-1").get_by_role("link", name="floor=3")).to_be_visible()
    assert stack.call("GET", f"/v1/devices/{fleet['till-2']}")["labels"] == {"role": "till", "floor": "3"}
    row(page, "till-1").get_by_role("link", name="floor=3").click()
    expect(page.get_by_role("combobox", name="Labels")).to_have_value("floor=3")
    expect(row(page, "till-2")).to_be_visible()


def test_build_is_offered_to_a_ring_of_sites(page, stack, fleet):
    build = stack.publish(2)
    visit(page, f"/builds/{build}")
    page.get_by_role("button", name="Promote").click()
    dialog(page).get_by_label("Share of the devices").fill("100")
    dialog(page).get_by_role("combobox", name="Only devices with labels").fill("site in (bonn,hamburg)")
    expect(dialog(page).get_by_role("status")).to_contain_text("1 device pilot-2")
    dialog(page).get_by_role("button", name="Promote").click()
    expect(page.get_by_text("offered to 100 % of site in (bonn,hamburg)")).to_be_visible()
    assert stack.call("GET", f"/v1/apk/builds/{build}")["rollout_filter"] == {"selector": "site in (bonn,hamburg)"}


def test_devices_are_deleted_together(page, stack):
    for n in (1, 2):
        stack.register(f"gone-{n}")
    visit(page, "/devices?q=gone-")
    page.get_by_label("Select all 2").check()
    page.get_by_role("button", name="Delete").click()
    dialog(page).get_by_role("button", name="Delete 2 devices").click()
    expect(page.get_by_text("No device matches this filter.")).to_be_visible()


def test_dialog_keeps_the_devices_it_was_opened_with(page, stack):
    """The list below it is refreshed, and the chosen device may leave the list."""
    ids = {alias: stack.register(alias)[0] for alias in ("stays-1", "stays-2")}
    for device_id in ids.values():
        stack.call("PATCH", f"/v1/devices/{device_id}", {"labels": {"role": "stays"}})
    visit(page, "/devices?selector=role%3Dstays")
    row(page, "stays-1").get_by_role("checkbox").check()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(dialog(page)).to_contain_text("stays-1")
    stack.call("PATCH", f"/v1/devices/{ids['stays-1']}", {"labels": {"role": "left"}})
    expect(page.locator("main table").get_by_text("stays-1")).to_have_count(0, timeout=20_000)
    expect(dialog(page)).not_to_contain_text("stays-2")
    dialog(page).get_by_role("button", name=re.compile("^Delete ")).click()
    expect(dialog(page)).to_have_count(0)
    left = {item["alias"] for item in stack.call("GET", "/v1/devices?limit=100")["items"]}
    assert left & ids.keys() == {"stays-2"}


def test_typed_text_outlives_a_refresh_of_the_page(page, stack):
    device_id = stack.register("renamed")[0]
    visit(page, f"/devices/{device_id}")
    page.get_by_role("button", name="Rename").click()
    field = dialog(page).get_by_label("Alias")
    field.fill("a new name")
    for _ in range(2):
        with page.expect_response(lambda answer: answer.url.endswith(device_id), timeout=20_000) as got:
            pass
        got.value.finished()
    expect(field).to_have_value("a new name")
