"""Call every operator route successfully: a change leaves an event, a read leaves none."""

import httpx

from tests.support.gateway import gateway
from tests.system.access import stage as stages
from tests.system.access.principals import PRINCIPALS, request
from tests.system.access.routes import ENTRIES

# The writes that a read may make: a signed URL has its own audit row and is counted.
OF_A_LOOK = {"apk_download_events", "apk_download_rates", "apk_versions"}


def test_operator_change_leaves_an_event_and_read_leaves_none(url, fake_fcm, bucket):
    stage = stages.set_up()
    wrong, changed = [], 0
    with gateway(url) as address, httpx.Client(base_url=address, timeout=30) as api:
        for key, entry in ENTRIES.items():
            if entry.kind != "operator":
                continue
            before = stages.contents()
            answer = request(api, key.split()[0], entry.path, entry.body, PRINCIPALS["an operator"], stage)
            if answer.status_code != entry.right:
                wrong.append(f"{key}: {answer.status_code}, not {entry.right}: {answer.text[:200]}")
                continue
            after = stages.contents()
            events = len(after.pop("operator_events")) - len(before.pop("operator_events"))
            tables = {name for name in after if after[name] != before[name]}
            if key.startswith("GET"):
                tables -= OF_A_LOOK
            changed += bool(tables)
            if bool(tables) != bool(events):
                wrong.append(f"{key}: {events} events, changed {sorted(tables) or 'nothing'}")
    assert not wrong, "\n".join(wrong)
    assert changed > 20
