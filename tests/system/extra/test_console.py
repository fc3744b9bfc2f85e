"""The console's page in Chromium, with a real gateway, PostgreSQL, S3 and simulated devices."""

import base64
import io
import json
import re

import httpx
import zxingcpp
from PIL import Image
from playwright.sync_api import expect

from tests.support.builds import sample
from tests.system.extra import console_stack
from tests.system.extra.browser import opened
from tests.system.extra.console_page import dialog, row, visit

MARKUP = '<img src=x onerror="window.harmed=1"><b>bold</b>'


# --- everyday tasks


def test_enroll_watch_and_send(page, stack):
    token = enrolled_by_qr(page, "sim-0001")
    assert token["server_url"] == str(stack.api.base_url).rstrip("/")
    with console_stack.devices(stack, {token["alias"]: token["admin_key"]}, token["server_url"]):
        page.get_by_role("link", name="Devices", exact=True).click()
        expect(row(page, "sim-0001")).to_contain_text("online", timeout=30_000)
        page.get_by_role("link", name="sim-0001").click()
        expect(page.get_by_role("img", name=re.compile(r"Battery over time: now \d+ %"))).to_be_visible(timeout=30_000)
        page.get_by_role("button", name="Send command").click()
        dialog(page).get_by_label("Action").select_option("launch_app")
        dialog(page).get_by_label("Package").fill("io.unitynodes.unityapp")
        dialog(page).get_by_role("button", name="Send launch_app").click()
        expect(dialog(page)).to_contain_text("The device answered: OK.", timeout=30_000)
        dialog(page).get_by_role("link", name="Open the command").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("launch_app")
        expect(page.get_by_text("io.unitynodes.unityapp")).to_be_visible()


def test_alias_in_any_script_survives_the_qr_code(page):
    assert enrolled_by_qr(page, "Büro «Ä» 東京 🚌")["alias"] == "Büro «Ä» 東京 🚌"


def enrolled_by_qr(page, alias: str, scope: str = "register") -> dict[str, str]:
    """What a phone's camera reads from the screen after a token was created for `alias`."""
    page.get_by_role("link", name="Enrollment").click()
    page.get_by_role("button", name="New tokens").click()
    dialog(page).get_by_label("Aliases").fill(alias)
    dialog(page).get_by_label("For", exact=True).select_option(scope)
    dialog(page).get_by_role("button", name="Make tokens").click()
    code = page.get_by_role("img", name=f"QR code that enrolls {alias}")
    code.wait_for()
    picture = Image.open(io.BytesIO(code.screenshot()))
    return json.loads(zxingcpp.read_barcode(picture).text)


def test_rollout_pause_and_resume(page, stack):
    build = stack.publish(2)
    made = stack.call("POST", "/v1/enroll-tokens", {"aliases": ["sim-0002", "sim-0001"], "expires_in_sec": 600})
    tokens = {item["alias"]: item["token"] for item in made["items"]}
    with console_stack.devices(stack, tokens, str(stack.api.base_url)) as fleet:
        page.get_by_role("link", name="Builds", exact=True).click()
        page.get_by_role("link", name="2.0 (2)").click()
        page.get_by_role("button", name="Promote").click()
        dialog(page).get_by_role("button", name="Promote").click()
        expect(page.get_by_text("offered to 10 % of the fleet")).to_be_visible()
        stack.fake_fcm.wait_for(lambda: len(fleet.device_ids) == 2, 30)
        page.get_by_role("button", name="Roll out").click()
        dialog(page).get_by_label("Share of the devices").fill("100")
        dialog(page).get_by_label("Ask devices that neither have it nor were already asked to install it now").check()
        dialog(page).get_by_role("button", name="Roll out").click()
        expect(page.get_by_role("img", name=re.compile("Installations: 2 installed"))).to_be_visible(timeout=40_000)
    page.get_by_role("button", name="Pause").click()
    dialog(page).get_by_label("Reason").fill("screens stay black")
    dialog(page).get_by_role("button", name="Pause").click()
    expect(page.get_by_text("paused: screens stay black")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    dialog(page).get_by_role("button", name="Resume").click()
    expect(page.get_by_text("offered to 100 % of the fleet")).to_be_visible()
    page.get_by_role("button", name="Roll back").click()
    dialog(page).get_by_label("Reason").fill("try")
    dialog(page).get_by_role("button", name="Roll back").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("There is no build before this one. Pause it instead.")
    assert stack.call("GET", f"/v1/apk/builds/{build}")["is_current"]


def test_factory_reset_phone_is_set_up_by_qr_code(page, stack):
    build = stack.publish(2)
    stack.call("POST", f"/v1/apk/builds/{build}/promote")
    told = enrolled_by_qr(page, "boxed", scope="apk_download")
    extra = "android.app.extra.PROVISIONING_DEVICE_ADMIN_"
    assert told[f"{extra}COMPONENT_NAME"] == "com.nexmdm/.NexDeviceAdminReceiver"
    checksum = base64.urlsafe_b64decode(told[f"{extra}SIGNATURE_CHECKSUM"] + "=")
    assert checksum.hex() == stack.call("GET", f"/v1/apk/builds/{build}")["signer_fingerprint"]
    fetched = httpx.get(told[f"{extra}PACKAGE_DOWNLOAD_LOCATION"], follow_redirects=True)
    assert fetched.content == sample("agent-2")


def test_command_to_selected_devices_is_cancelled(page, stack):
    """The devices have no FCM token, so the commands wait."""
    for alias in ("hall-1", "hall-2", "hall-3"):
        stack.register(alias)
    visit(page, "/devices?q=hall-")
    page.get_by_label("Select hall-1").check()
    page.get_by_label("Select hall-3").check()
    page.get_by_role("button", name="Send command to 2").click()
    dialog(page).get_by_label("Action").select_option("set_dnd")
    dialog(page).get_by_label("Do not disturb").select_option("off")
    dialog(page).get_by_role("button", name="Send set_dnd to 2 devices").click()
    expect(dialog(page).get_by_role("img", name="States: 2 accepted")).to_be_visible(timeout=30_000)
    dialog(page).get_by_role("link", name="Open the command").click()
    expect(row(page, "set_dnd")).to_have_count(2)
    page.get_by_role("button", name="Cancel").click()
    dialog(page).get_by_role("button", name="Cancel the command").click()
    expect(page.get_by_role("img", name="States: 2 cancelled")).to_be_visible()
    expect(row(page, "cancelled")).to_have_count(2)


def test_device_is_renamed_and_deleted(page, stack):
    device_id, _ = stack.register("attic")
    stack.register("cellar")
    visit(page, f"/devices/{device_id}")
    page.get_by_role("button", name="Rename").click()
    dialog(page).get_by_label("Alias").fill("cellar")
    dialog(page).get_by_role("button", name="Rename").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("'cellar' is the alias of another device")
    dialog(page).get_by_label("Alias").fill("roof")
    dialog(page).get_by_role("button", name=re.compile("Rename")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("roof")
    page.get_by_role("button", name="Delete").click()
    dialog(page).get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Delete").click()
    dialog(page).get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Devices")
    assert stack.api.get(f"/v1/devices/{device_id}").status_code == 404


def test_renamed_device_has_its_new_alias_on_every_page(page, stack):
    stack.register("old-name")
    page.get_by_role("link", name="Devices", exact=True).click()
    page.get_by_role("link", name="old-name").click()
    page.get_by_role("button", name="Rename").click()
    dialog(page).get_by_label("Alias").fill("new-name")
    dialog(page).get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("new-name")
    page.get_by_role("link", name="Events", exact=True).click()
    expect(row(page, "device.rename").get_by_role("link", name="new-name")).to_be_visible()


def test_unknown_command_is_resent_with_a_reason(page, stack):
    device_id, token = stack.register("unsure")
    stack.fake_fcm.behave("fcm:unsure", "503", "200")
    body = {"device_id": device_id, "fcm_token": "fcm:unsure"}
    headers = {"Authorization": f"Bearer {token}"}
    stack.api.post("/v1/devices/fcm-token", json=body, headers=headers, auth=None).raise_for_status()
    sent = stack.call("POST", f"/v1/devices/{device_id}/commands", {"action": "reboot", "request_id": "unsure-1"})
    assert sent["state"] == "unknown"
    visit(page, "/commands?state=unknown")
    row(page, "unsure").get_by_role("link", name="reboot").click()
    expect(page.get_by_text("It is not known whether it arrived.")).to_be_visible()
    page.get_by_role("button", name="Resend").click()
    dialog(page).get_by_label("Reason").fill("it did not restart")
    dialog(page).get_by_role("button", name="Resend").click()
    expect(page.get_by_text("Sent; the agent does not report the result of this action.")).to_be_visible()
    expect(page.get_by_text("reason: it did not restart")).to_be_visible()
    assert len(stack.fake_fcm.posts("unsure-1")) == 2


def test_token_is_revoked_on_the_page(page, stack):
    stack.call("POST", "/v1/enroll-tokens", {"aliases": ["mislaid"]})
    visit(page, "/enroll")
    page.get_by_role("button", name="Revoke the token of mislaid").click()
    dialog(page).get_by_role("button", name="Revoke").click()
    expect(row(page, "mislaid")).to_contain_text("revoked")


# --- failures


def test_lost_response_creates_no_second_command_on_the_page(page, stack):
    device_id, _ = stack.register("far")
    keys = []

    def lose(route):
        keys.append(route.request.headers["idempotency-key"])
        route.fetch()
        route.abort()

    visit(page, f"/devices/{device_id}")
    page.route("**/commands", lose, times=1)
    page.get_by_role("button", name="Send command").click()
    dialog(page).get_by_role("button", name="Send ping").click()
    expect(dialog(page).get_by_role("alert")).to_be_visible()
    with page.expect_request("**/commands") as again:
        dialog(page).get_by_role("button", name="Try again: Send ping").click()
    expect(dialog(page)).to_contain_text("Waiting to be sent.")
    assert again.value.headers["idempotency-key"] == keys[0]
    assert len(stack.call("GET", f"/v1/commands?device_id={device_id}")["items"]) == 1


def test_outage_is_shown_until_it_ends(page):
    visit(page, "/")
    expect(page.get_by_text(re.compile("^updated "))).to_be_visible()
    page.route("**/api/**", lambda route: route.abort())
    page.get_by_role("button", name="Update now").click()
    expect(page.get_by_role("alert")).to_contain_text("The console's server does not respond.")
    expect(page.get_by_text(re.compile("not updated since"))).to_be_visible()
    page.unroute("**/api/**")
    page.get_by_role("button", name="Update now").click()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_page_without_its_token_says_what_to_do(browser, stack):
    with opened(browser, stack.console.url) as (page, _):
        expect(page.get_by_role("alert").first).to_contain_text("Open the file that was printed")


def test_code_is_removed_from_the_address_bar(page, stack):
    assert page.url == f"{stack.console.url}/"
    assert stack.console.token not in page.evaluate(
        "JSON.stringify(history.state) + document.documentElement.outerHTML"
    )


def test_markup_in_an_alias_is_shown_as_text(page, stack):
    device_id, token = stack.register(MARKUP)
    stack.call("POST", f"/v1/devices/{device_id}/commands", {"action": "wake", "request_id": "markup-1"})
    report = {
        "request_id": "markup-1",
        "action": "wake",
        "outcome": MARKUP[:50],
        "message": MARKUP,
        "finished_at": "now",
    }
    answer = stack.api.post("/v1/action-result", json=report, headers={"Authorization": f"Bearer {token}"}, auth=None)
    answer.raise_for_status()
    mute = {"filter": {"all": True}, "until": "2199-01-01T00:00:00Z", "reason": MARKUP}
    stack.call("POST", "/v1/mutes", mute)
    places = (
        "/devices",
        f"/devices/{device_id}",
        "/commands",
        "/commands/markup-1",
        "/enroll",
        "/alerts/mutes",
        "/events",
    )
    for place in places:
        visit(page, place)
        page.get_by_text(MARKUP[:30]).filter(visible=True).first.wait_for()
        assert page.locator("img[src='x']").count() == 0
    visit(page, f"/devices/{device_id}")
    for button in ("Send command", "Rename", "Delete"):
        page.get_by_role("button", name=button).click()
        dialog(page).wait_for()
        assert page.locator("img[src='x']").count() == 0
        page.keyboard.press("Escape")
        assert page.evaluate("window.harmed") is None
