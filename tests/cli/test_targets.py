"""Selecting devices on the command line by labels and groups: labels, previews, prompts, CSV files and completion."""

import csv
import io
import json

import pytest
from nexmdm_cli import selection, tabular
from rich.console import Console

from tests.support.cli import nexmdm


@pytest.fixture(scope="module")
def phones(stack):
    return {alias: stack.enroll(alias) for alias in ("tgt-1", "tgt-2", "tgt-3")}


@pytest.fixture(autouse=True)
def _labelled(phones, run):
    run("devices", "label", "fleet=tgt", "role=till", "retired-", "--alias-prefix", "tgt-", "--yes")


@pytest.fixture
def terminal(monkeypatch):
    """Behave as in a terminal, where a prompt can be answered."""
    monkeypatch.setattr(Console, "is_terminal", property(lambda self: self.stderr))


def aliases(rows):
    return [row["alias"] for row in rows]


def test_devices_are_labeled_and_found_by_their_labels(data, run):
    assert data("devices", "label", "site=berlin", "role-", "--to", "tgt-1") == {"device_count": 1, "changed": 1}
    assert data("devices", "show", "tgt-1")["labels"] == {"fleet": "tgt", "site": "berlin"}
    assert "site=berlin" in run("devices", "show", "tgt-1").stdout
    assert aliases(data("devices", "list", "-l", "fleet=tgt,!role")) == ["tgt-1"]
    assert aliases(data("devices", "list", "--selector", "fleet=tgt,role")) == ["tgt-2", "tgt-3"]
    assert run("devices", "label", "a=b", "-l", "fleet=tgt", "--yes").stdout == "3 devices, 3 changed\n"
    run("devices", "label", "site-", "a-", "-l", "fleet=tgt", "--yes")
    assert data("status", "-l", "fleet=tgt", code=1)["fleet"]["devices"] == 3
    assert data("alerts", "-l", "fleet=tgt") == []


def test_invalid_selector_is_shown_with_its_column(run):
    assert "column 3" in run("devices", "list", "-l", "a b", code=4).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("label", "site=x"), 2, "No devices were given"),
        (("label", "site=x", "--to", "tgt-1", "-l", "fleet"), 2, "No devices were given"),
        (("label", "site", "--to", "tgt-1"), 2, "KEY=VALUE"),
        (("label", "a=1", "a-", "--to", "tgt-1"), 4, "$.set.a"),
        (("label", "A=1", "--to", "tgt-1"), 4, "$.set"),
        (("label", "a=1", "-l", "fleet=nobodys", "--yes"), 3, "No device matches."),
        (("delete",), 2, "No devices were given"),
    ],
)
def test_invalid_target_is_named(run, arguments, code, said):
    assert said in run("devices", *arguments, code=code).stderr


@pytest.mark.parametrize(
    "verb", [("devices", "label", "x=y"), ("devices", "delete"), ("send", "ping")], ids=["label", "delete", "send"]
)
def test_dry_run_shows_the_devices_and_does_nothing(data, run, verb, stack):
    posts = len(stack.fake_fcm.requests())
    preview = data(*verb, "-l", "fleet=tgt", "--dry-run")
    assert (preview["device_count"], preview["sample"]) == (3, ["tgt-1", "tgt-2", "tgt-3"])
    assert len(preview["target_hash"]) == 64
    assert "tgt-1, tgt-2, tgt-3" in run(*verb, "-l", "fleet=tgt", "--dry-run").stdout
    rows = data("devices", "list", "-l", "fleet=tgt")
    assert aliases(rows) == ["tgt-1", "tgt-2", "tgt-3"]
    assert not any("x" in row["labels"] for row in rows)
    assert len(stack.fake_fcm.requests()) == posts


def test_prompt_names_the_devices_and_the_change_is_bound_to_them(run, data, terminal, monkeypatch, phones):
    asked = run("devices", "label", "x=y", "-l", "fleet=tgt", answer="n\n", code=1)
    assert "Label x=y on 3 devices (tgt-1, tgt-2, tgt-3)?" in asked.stderr
    change = ("devices", "label", "role-", "--to", "tgt-3")

    def another_operator(*_, **__):
        nexmdm(*change)
        return True

    # While the prompt waits, another operator changes the selected devices.
    monkeypatch.setattr("typer.confirm", another_operator)
    refused = run("send", "ping", "-l", "fleet=tgt,role", "--no-wait", code=4)
    assert "selects other devices" in refused.stderr
    assert data("send", "ping", "-l", "fleet=tgt,role", "--no-wait", "--yes")["device_count"] == 2


def test_devices_are_deleted_by_filter(data, run, stack):
    for n in range(2):
        stack.enroll(f"leaver-{n}")
    assert data("devices", "delete", "--alias-prefix", "leaver-", "--yes") == {"device_count": 2, "deleted": 2}
    assert data("devices", "list", "--alias-prefix", "leaver-") == []


def test_groups_are_created_listed_and_deleted(data, run):
    made = data("groups", "set", "tgt", "-l", "fleet=tgt", "--silent")
    assert (made["filter"], made["device_count"]) == ({"selector": "fleet=tgt", "online": False}, 3)
    assert data("groups", "show", "tgt") == made
    assert "--selector fleet=tgt --silent" in run("groups", "list").stdout
    assert aliases(data("devices", "list", "--group", "tgt")) == ["tgt-1", "tgt-2", "tgt-3"]
    assert data("send", "wake", "--group", "tgt", "--dry-run")["device_count"] == 3
    assert "No filter was given" in run("groups", "set", "tgt", code=2).stderr
    run("groups", "delete", "tgt", "--yes")
    run("groups", "show", "tgt", code=3)


def test_enrollment_tokens_have_labels(data, run):
    made = data("enroll", "create", "tgt-new", "--label", "site=berlin", "--label", "role=")
    assert made["items"][0]["labels"] == {"site": "berlin", "role": ""}
    assert "KEY=VALUE" in run("enroll", "create", "tgt-new", "--label", "site-", code=2).stderr


def test_monitored_app_of_a_device_is_set(data, run):
    assert data("devices", "monitor", "tgt-1", "io.player")["monitored_package"] == "io.player"
    assert "io.player" in run("devices", "show", "tgt-1").stdout
    assert data("devices", "monitor", "tgt-1")["monitored_package"] is None


def test_monitored_app_of_a_group_is_set(data, run):
    app = "com.example.till"
    made = data("groups", "set", "tgt-watch", "--alias-prefix", "tgt-1", "--monitored-package", app)
    assert made["monitored_package"] == app
    assert app in run("groups", "show", "tgt-watch").stdout
    assert app in run("devices", "show", "tgt-1").stdout
    assert data("groups", "set", "tgt-watch", "--alias-prefix", "tgt-1")["monitored_package"] is None
    assert app not in run("devices", "show", "tgt-1").stdout
    run("groups", "delete", "tgt-watch", "--yes")


# --- CSV


def exported(run) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(run("devices", "export", "--csv", "-l", "fleet=tgt").stdout)))


def test_import_of_an_export_changes_nothing(run, data, operator):
    run("devices", "label", 'note=a,"b";ü', "--to", "tgt-1")
    document = run("devices", "export", "--csv", "-l", "fleet=tgt").stdout
    assert document.splitlines()[0].startswith("device_id,alias,labels,")
    (operator / "devices.csv").write_text(document)
    assert data("devices", "import", "--csv", "devices.csv") == {
        "device_count": 3, "changed": 0, "dry_run": False, "errors": [],
    }  # fmt: skip
    run("devices", "label", "note-", "--to", "tgt-1")


def test_wide_spaces_and_joiners_survive_an_export_and_an_import(stack, run, data, operator):
    alias = "二階\u3000奥\u00a0👩\u200d🚒"
    stack.enroll(alias)
    run("devices", "label", "shelf=odd", "note=一\u3000二", "--to", alias)
    (operator / "odd.csv").write_bytes(run("devices", "export", "--csv", "-l", "shelf=odd").stdout_bytes)
    assert data("devices", "import", "odd.csv")["changed"] == 0
    assert aliases(data("devices", "list", "-l", "shelf=odd")) == [alias]
    assert alias in run("devices", "list", "-l", "shelf=odd").stdout


def rows_of(run, **labels: dict) -> str:
    """The export with new labels for some aliases, written as a spreadsheet with another locale would."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";")
    writer.writerow(["device_id", "alias", "labels", "remark"])
    for row in exported(run):
        own = labels.get(row["alias"].replace("-", "_"))
        writer.writerow([row["device_id"], row["alias"], row["labels"] if own is None else json.dumps(own), "x"])
    return "\ufeff" + text.getvalue()


def test_import_applies_the_changes_of_the_file(run, data, operator):
    (operator / "new.csv").write_text(rows_of(run, tgt_2={"fleet": "tgt", "floor": "3"}))
    assert data("devices", "import", "new.csv", "--dry-run")["changed"] == 1
    assert data("devices", "list", "-l", "fleet=tgt,floor") == []
    asked = run("devices", "import", "new.csv", code=2)
    assert "Change 1 device?" in asked.stderr
    assert run("devices", "import", "new.csv", "--yes").stdout == "3 devices, 1 changed\n"
    assert data("devices", "show", "tgt-2")["labels"] == {"fleet": "tgt", "floor": "3"}


def test_import_names_every_invalid_line_and_changes_nothing(run, data, operator):
    text = rows_of(run, tgt_1={"fleet": "tgt", "x": "1"}, tgt_2={"Fleet": "tgt"})
    (operator / "bad.csv").write_text(text + 'nobody;nobody;{}\n;;"{"\n')
    refused = run("devices", "import", "bad.csv", "--yes", code=4)
    assert "line 6: labels" in refused.stderr
    for labels in ('"{""a"": NaN}"', "[" * 100_000):
        (operator / "bad.csv").write_text(f"alias,labels\ntgt-1,{labels}\n")
        assert "line 2: labels" in run("devices", "import", "bad.csv", "--yes", code=4).stderr
    (operator / "bad.csv").write_text(text + "nobody;nobody;{}\n")
    refused = run("devices", "import", "bad.csv", "--yes", code=4)
    assert "line 3: labels" in refused.stderr
    assert "line 5: device_id" in refused.stderr
    assert data("devices", "list", "-l", "fleet=tgt,x") == []
    taken = run("devices", "import", "bad.csv", "--yes", "--partial", code=4)
    assert taken.stdout == "2 devices, 1 changed\n"
    assert "line 5: device_id" in taken.stderr
    assert aliases(data("devices", "list", "-l", "fleet=tgt,x")) == ["tgt-1"]
    run("devices", "label", "x-", "--to", "tgt-1")


def test_large_file_is_sent_in_parts_only_on_request(run, data, operator, monkeypatch):
    monkeypatch.setattr(tabular, "MAX_ROWS", 2)
    (operator / "new.csv").write_text(rows_of(run, tgt_3={"fleet": "tgt", "part": "2"}))
    assert "--partial" in run("devices", "import", "new.csv", "--yes", code=4).stderr
    assert data("devices", "list", "-l", "part") == []
    assert run("devices", "import", "new.csv", "--yes", "--partial").stdout == "3 devices, 1 changed\n"
    assert aliases(data("devices", "list", "-l", "part")) == ["tgt-3"]
    run("devices", "label", "part-", "--to", "tgt-3")


def test_part_of_an_import_fits_into_a_request():
    rows = [(n, {"device_id": str(n), "labels": {"a": "ü" * 200}}) for n in range(5000)]
    parts = list(tabular.chunks(rows))
    assert [row for part in parts for row in part] == rows
    assert all(len(json.dumps([row for _, row in part]).encode()) <= tabular.MAX_BODY_BYTES for part in parts)
    assert len(parts) > 1


def test_file_that_is_not_an_export_is_refused(run, operator):
    for content, said in ((b"a,b\n1,2\n", "device_id"), (b"\xff\xfe", "UTF-8"), (b'alias\n"x', "line")):
        (operator / "file.csv").write_bytes(content)
        assert said in run("devices", "import", "file.csv", code=2).stderr
    assert "cannot be read" in run("devices", "import", "nowhere.csv", code=2).stderr


# --- completion


def test_keys_values_and_groups_are_completed(operator, run, monkeypatch):
    run("groups", "set", "tgt-group", "-l", "fleet=tgt")
    assert "fleet" in selection.complete_selector("fle")
    assert selection.complete_selector("!fle") == ["!fleet"]
    assert selection.complete_selector("role in (a,b),fleet=t") == ["role in (a,b),fleet=tgt"]
    assert selection.complete_selector("role!=spare,fleet!=") == ["role!=spare,fleet!=tgt"]
    assert selection.complete_selector("fleet=tgt,fle") == ["fleet=tgt,fleet"]
    assert selection.complete_group("tgt-g") == ["tgt-group"]
    run("groups", "delete", "tgt-group", "--yes")
    monkeypatch.setenv("NEXMDM_URL", "http://127.0.0.1:1")
    assert selection.complete_selector("fle") == []
    assert selection.complete_group("tgt") == []
