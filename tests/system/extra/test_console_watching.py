"""The console's pages for monitoring: events, alert rules, mutes, schedules and history."""

import re

import pytest
from playwright.sync_api import expect

from tests.support.postgres import run_sql
from tests.system.extra.browser import opened
from tests.system.extra.console_page import dialog, row, visit

FORBIDDEN = {"message": "Forbidden"}  # API Gateway's response when IAM refuses


@pytest.fixture(scope="module")
def fleet(stack) -> dict[str, str]:
    ids = {}
    for alias in ("watch-1", "watch-2", "other-1"):
        ids[alias] = stack.register(alias)[0]
        stack.call("PATCH", f"/v1/devices/{ids[alias]}", {"labels": {"role": alias[:5], "kept": "yes"}})
    stack.call("PUT", "/v1/groups/watched", {"filter": {"selector": "role=watch"}})
    return ids


def silenced(stack, device_id: str) -> int:
    """Insert an open alert about the device, as the watch would; return its id."""
    statement = (
        "INSERT INTO device_alerts (device_id, condition, rule, severity, since, opened_at)"
        f" VALUES ('{device_id}', 'silent', 'silent', 'warning', clock_timestamp(), clock_timestamp())"
    )
    run_sql(stack.database_url, statement)
    return stack.call("GET", f"/v1/alerts?device_id={device_id}")["items"][0]["alert_id"]


# --- events


def test_events_are_filtered_and_linked(page, stack, fleet):
    visit(page, "/events?action=device.update")
    expect(page.get_by_label("Action")).to_have_value("device.update")
    expect(row(page, "watch-1")).to_contain_text("role=watch")
    page.get_by_label("Action").fill("group.*")
    expect(row(page, "group.create")).to_contain_text("role=watch")
    expect(row(page, "device.update")).to_have_count(0)
    row(page, "group.create").get_by_role("link", name="watched").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Devices")
    expect(row(page, "watch-2")).to_be_visible()
    visit(page, "/events?action=device.update&since=2199-01-01T00:00:00.000Z")
    expect(page.get_by_text("No event matches this filter.")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    expect(row(page, "group.create")).to_be_visible()


def test_older_events_are_loaded_by_cursor(page, stack):
    run_sql(
        stack.database_url,
        "INSERT INTO operator_events (actor, action, object) SELECT 'system:test', 'test.page', 'test:' || n"
        " FROM generate_series(1, 130) AS n",
    )
    visit(page, "/events?action=test.page")
    expect(row(page, "test.page")).to_have_count(100)
    page.get_by_role("button", name="Older ones").click()
    expect(row(page, "test.page")).to_have_count(130)
    expect(page.get_by_role("button", name="Older ones")).to_have_count(0)


def test_device_and_build_show_their_last_ten_events(page, stack, fleet):
    events = [{"kept": str(n)} for n in range(12)]
    for labels in events:
        stack.call("PATCH", f"/v1/devices/{fleet['other-1']}", {"labels": labels})
    visit(page, f"/devices/{fleet['other-1']}")
    section = page.get_by_role("region", name="Events")
    expect(section.get_by_role("row")).to_have_count(11)  # including the heading
    expect(section).to_contain_text("kept=11")
    section.get_by_role("link", name="All events").click()
    expect(page.get_by_label("Object")).to_have_value(f"device:{fleet['other-1']}")
    expect(row(page, "device.update")).to_have_count(13)
    build = stack.publish(2)
    visit(page, f"/builds/{build}")
    expect(page.get_by_role("region", name="Events")).to_contain_text("build.declare")


# --- rules, mutes, alerts


def test_rule_is_created_changed_disabled_and_deleted(page, stack, fleet):
    visit(page, "/alerts/rules")
    page.get_by_role("button", name="New rule").click()
    form = dialog(page)
    form.get_by_label("Name").fill("watched-low")
    form.get_by_label("Condition").select_option("low_battery")
    form.get_by_label("Threshold (percent)").fill("40")
    form.get_by_label("Must last").fill("900")
    form.get_by_label("Severity").select_option("critical")
    form.get_by_label("Routes").fill("oncall, slack")
    form.get_by_label("Group").select_option("watched")
    expect(form.get_by_role("status")).to_contain_text("2 devices watch-1, watch-2")
    form.get_by_label("Priority").fill("10")
    form.get_by_label("From").fill("22:00")
    form.get_by_label(re.compile(r"^To\b")).fill("06:00")
    form.get_by_label("Time zone").fill("Europe/Nowhere")
    form.get_by_role("button", name="Save the rule").click()
    expect(form.get_by_role("alert")).to_contain_text("Europe/Nowhere")
    form.get_by_label("Time zone").fill("Europe/Berlin")
    form.get_by_role("button", name=re.compile("Save the rule")).click()
    expect(row(page, "watched-low")).to_contain_text("40 % for 15 min")
    made = stack.call("GET", "/v1/alert-rules/watched-low")
    del made["created_at"]
    assert made == {
        "name": "watched-low", "condition": "low_battery", "filter": {"group": "watched"}, "threshold": 40.0,
        "for_seconds": 900, "severity": "critical", "routes": ["oncall", "slack"], "priority": 10, "enabled": True,
        "quiet_hours": {"timezone": "Europe/Berlin", "from": "22:00", "to": "06:00"},
    }  # fmt: skip
    page.get_by_role("button", name="Edit watched-low").click()
    expect(form.get_by_label("Threshold (percent)")).to_have_value("40")
    form.get_by_label("Threshold (percent)").fill("")
    form.get_by_label("From").fill("")
    form.get_by_label(re.compile(r"^To\b")).fill("")
    form.get_by_role("button", name="Save the rule").click()
    expect(row(page, "watched-low")).to_contain_text("default for 15 min")
    changed = stack.call("GET", "/v1/alert-rules/watched-low")
    assert (changed["threshold"], changed["quiet_hours"], changed["filter"]) == (None, None, {"group": "watched"})
    page.get_by_role("button", name="Disable watched-low").click()
    form.get_by_role("button", name="Disable").click()
    expect(row(page, "watched-low")).to_contain_text("disabled")
    page.get_by_role("button", name="Delete watched-low").click()
    form.get_by_role("button", name="Delete").click()
    expect(row(page, "watched-low")).to_have_count(0)
    visit(page, "/events?object=alert_rule:watched-low")
    for action in ("alert_rule.create", "alert_rule.delete"):
        expect(row(page, action)).to_have_count(1)


def test_site_is_muted_and_the_mute_ended(page, stack, fleet):
    visit(page, "/alerts/mutes")
    expect(page.get_by_text("There are no mutes.")).to_be_visible()
    page.get_by_role("button", name="New mute").click()
    dialog(page).get_by_label("Reason").fill("site is rebuilt")
    dialog(page).get_by_label("Condition").select_option("silent")
    dialog(page).get_by_role("combobox", name="Labels").fill("role=watch")
    expect(dialog(page).get_by_role("status")).to_contain_text("2 devices")
    dialog(page).get_by_role("button", name="Mute").click()
    expect(row(page, "site is rebuilt")).to_contain_text("role=watch")
    [mute] = stack.call("GET", "/v1/mutes")["items"]
    assert (mute["condition"], mute["filter"]) == ("silent", {"selector": "role=watch"})
    page.get_by_role("button", name="End the mute: site is rebuilt").click()
    dialog(page).get_by_role("button", name="End the mute").click()
    expect(page.get_by_text("There are no mutes.")).to_be_visible()


def test_alert_is_acknowledged_with_a_note(page, stack, fleet):
    silenced(stack, fleet["watch-1"])
    visit(page, "/alerts?condition=silent")
    page.get_by_role("button", name="Acknowledge watch-1, Silent").click()
    dialog(page).get_by_label("Note").fill("battery is being changed")
    dialog(page).get_by_role("button", name="Acknowledge").click()
    expect(row(page, "watch-1")).to_contain_text("battery is being changed")
    visit(page, f"/devices/{fleet['watch-1']}")
    expect(page.get_by_role("region", name="Now")).to_contain_text("battery is being changed")


def test_muted_alert_is_shown_as_muted_and_not_counted(page, stack, fleet):
    alert_id = silenced(stack, fleet["watch-2"])
    visit(page, "/alerts")
    link = page.get_by_role("link", name=re.compile(r"Alerts \(\d+\)"))
    counted = int(re.search(r"\d+", link.text_content())[0])
    run_sql(stack.database_url, f"UPDATE device_alerts SET muted = true WHERE id = {alert_id}")
    visit(page, "/alerts")
    expect(row(page, "watch-2")).to_contain_text("muted")
    left = f"Alerts ({counted - 1})" if counted > 1 else "Alerts"
    expect(page.get_by_role("navigation", name="Main").get_by_role("link", name=left, exact=True)).to_be_visible()


# --- schedules


def test_schedule_that_runs_once(page, stack):
    visit(page, "/schedules")
    page.get_by_role("button", name="New schedule").click()
    form = dialog(page)
    form.get_by_label("Name").fill("holidays")
    form.get_by_label("Runs").select_option("once")
    form.get_by_label("At", exact=True).fill("2099-12-24T18:00")
    form.get_by_label("Time zone").fill("Europe/Berlin")
    form.get_by_role("button", name="Create the schedule").click()
    expect(dialog(page)).to_have_count(0)
    assert stack.call("GET", "/v1/schedules/holidays")["at"] == "2099-12-24T17:00:00Z"
    stack.call("DELETE", "/v1/schedules/holidays")


def test_schedule_for_a_group_shows_its_next_runs(page, stack, fleet):
    visit(page, "/schedules")
    page.get_by_role("button", name="New schedule").click()
    form = dialog(page)
    form.get_by_label("Name").fill("nightly")
    form.get_by_label("Command").select_option("launch_app")
    form.get_by_label("Package").fill("com.example.kiosk")
    form.get_by_label("Cron").fill("0 3 * * *")
    form.get_by_label("Time zone").fill("Europe/Berlin")
    form.get_by_label("Group").select_option("watched")
    expect(form.get_by_role("status")).to_contain_text("2 devices watch-1, watch-2")
    form.get_by_role("button", name="Create the schedule").click()
    page.get_by_role("link", name="nightly").click()
    expect(page.get_by_text("group watched")).to_be_visible()
    next_runs = page.get_by_role("region", name=re.compile("Next runs, in"))
    made = stack.call("GET", "/v1/schedules/nightly")
    assert (made["filter"], made["params"]) == ({"group": "watched"}, {"package_name": "com.example.kiosk"})
    shown = [time.get_attribute("datetime") for time in next_runs.get_by_role("time").all()]
    assert shown == made["next_runs"]
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("nightly")
    page.get_by_role("button", name="Delete").click()
    dialog(page).get_by_role("button", name="Delete the schedule").click()
    expect(page.get_by_text("There are no schedules.")).to_be_visible()


def test_next_runs_are_in_the_time_zone_of_the_browser(browser, stack, fleet):
    body = {"name": "noon", "cron": "0 12 * * *", "timezone": "UTC", "action": "ping", "filter": {"group": "watched"}}
    stack.call("POST", "/v1/schedules", body)
    with opened(browser, stack.address, timezone="Asia/Tokyo") as (page, complaints):
        visit(page, "/schedules/noon")
        runs = page.get_by_role("region", name="Next runs, in Asia/Tokyo").get_by_role("time")
        expect(runs).to_have_count(5)
        expect(runs.first).to_contain_text("21:00")
        assert complaints == []
    stack.call("DELETE", "/v1/schedules/noon")


# --- history

# A hundred hours with 5, 6 and 7 devices online in turn, one of them in the group.
HOURS = """
INSERT INTO fleet_history (hour, grp, devices, online, silent, low_battery, app_down, heartbeats, info, warning,
    critical)
SELECT date_trunc('hour', now()) - n * interval '1 hour', grp, 9, CASE grp WHEN '' THEN 5 + n % 3 ELSE 1 END,
    0, 0, 0, 0, 0, 0, 0
FROM generate_series(0, 100) AS n, (VALUES (''), ('watched')) AS g(grp)
"""


def test_fleet_history_is_drawn(page, stack, fleet):
    visit(page, "/")
    section = page.get_by_role("region", name="Online over time")
    expect(section).to_contain_text("There are no values for this period yet.")
    run_sql(stack.database_url, HOURS)
    page.reload()
    expect(
        section.get_by_role("img", name=re.compile(r"Online over time: .*lowest 5 devices, highest 7"))
    ).to_be_visible()
    section.get_by_role("button", name="Week").click()
    expect(section.get_by_role("button", name="Week")).to_have_attribute("aria-pressed", "true")
    expect(page).to_have_url(re.compile("range=week"))
    section.get_by_role("button", name="Quarter").click()
    expect(section.get_by_role("img", name=re.compile("highest 6"))).to_be_visible()
    page.get_by_label("Group").select_option("watched")
    expect(section.get_by_role("img", name=re.compile("highest 1 devices"))).to_be_visible()


KEPT = """
INSERT INTO device_history (device_id, hour, reports, last_ts, battery_pct_min, battery_pct_max, battery_pct_last)
SELECT '{device}', date_trunc('hour', now()) - n * interval '1 hour', 6, now(), 20 + n % 3, 60 + n % 3, 41
FROM generate_series(1, 1500) AS n
"""


def test_ninety_days_of_a_device_are_drawn(page, stack, fleet):
    visit(page, f"/devices/{fleet['watch-1']}")
    section = page.get_by_role("region", name="History")
    section.get_by_role("button", name="90 days").click()
    expect(section).to_contain_text("There are no hourly values yet.")
    run_sql(stack.database_url, KEPT.format(device=fleet["watch-1"]))
    page.get_by_role("button", name="Update now").click()
    words = "Battery over time: last 41 %, lowest 20 %, highest 62 %"
    expect(section.get_by_role("img", name=words)).to_be_visible()
    expect(section).to_contain_text("1,500 hours since")
    section.get_by_role("button", name="Table").click()
    expect(section.get_by_text("1–100 of 1,500")).to_be_visible()
    expect(row(page, "21 – 61 %").first).to_be_visible()
    section.get_by_role("button", name="2 days").click()
    expect(section).to_contain_text("No heartbeat within the retention period.")


# --- a viewer without rights


@pytest.mark.parametrize(
    ("place", "route"),
    [
        ("/events", "GET /v1/events"),
        ("/alerts", "GET /v1/alerts"),
        ("/alerts/rules", "GET /v1/alert-rules"),
        ("/alerts/mutes", "GET /v1/mutes"),
    ],
)
def test_viewer_without_rights_sees_which_right_is_missing(page, place, route):
    page.route(f"**/api{route.removeprefix('GET ')}*", lambda route: route.fulfill(status=403, json=FORBIDDEN))
    visit(page, place)
    expect(page.get_by_role("alert")).to_contain_text(f"Your AWS credentials may not call {route}.")
    expect(page.get_by_role("table")).to_have_count(0)


def test_forbidden_action_is_reported_on_a_readable_page(page, stack, fleet):
    page.route("**/api/v1/mutes", lambda route: route.fulfill(status=403, json=FORBIDDEN))
    visit(page, "/alerts/mutes")
    page.get_by_role("button", name="New mute").click()
    dialog(page).get_by_label("Reason").fill("try")
    dialog(page).get_by_role("button", name="Mute").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("may not call POST /v1/mutes")
