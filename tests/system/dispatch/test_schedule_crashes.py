"""A sweep is killed while it starts a run of a schedule: the run starts once, whatever the sweep left behind."""

import pytest
from nexmdm.commands import schedules
from nexmdm.runtime import settings
from nexmdm.runtime.actor import Actor

from tests.system.dispatch.lines import Trap
from tests.system.dispatch.stage import SWEEP, Stage

# The statements of a start, each recognized by a part of its text.
STATEMENTS = {
    "begin": "BEGIN READ WRITE",
    "due": "FROM schedules",
    "run": "INSERT INTO schedule_runs",
    "batch": "INSERT INTO command_batches",
    "event": "INSERT INTO operator_events (actor, session, ip, request_id, action, object, before, after)\nVALUES",
    "next": "UPDATE schedules SET next_run_at",
    "commit": "COMMIT",
}
POINTS = [(name, phase) for name in STATEMENTS for phase in ("before", "after")]


class Named(Trap):
    """A trap for one of these statements; the relay has its own name for the batch's."""

    def __call__(self, what: str, phase: str) -> bool:
        name = "batch" if what == "accept" else next((n for n, mark in STATEMENTS.items() if mark in what), what)
        return super().__call__(name, phase)


@pytest.mark.parametrize(("name", "phase"), POINTS)
def test_killed_sweep_starts_a_run_once(here: Stage, name: str, phase: str):
    job = here.job()
    config, operator = settings.load(), Actor("arn:aws:iam::000000000000:user/operator")
    wanted = schedules.NewSchedule(
        name="nightly", cron="0 3 * * *", action="ping", filter=schedules.Filter(alias_prefix="device-")
    )
    try:
        schedules.create(here.db, wanted, operator, config)
        here.db.execute("UPDATE schedules SET next_run_at = date_trunc('second', now() - interval '5 s')")

        with here.held(SWEEP, Named(name, phase)) as sweeper:
            sweeper.kill()
        crowd = [here.sweeper() for _ in range(3)]
        started = sum(each.result()["started"] for each in crowd)

        committed = (name, phase) == ("commit", "after")
        assert started == (0 if committed else 1)
        (run,) = here.db.execute("SELECT status, request_id FROM schedule_runs")
        assert run["status"] == "started"
        assert here.db.execute("SELECT request_id FROM command_batches") == [{"request_id": run["request_id"]}]
        member = f"{run['request_id']}:{job.device_id}"
        here.sweeper().result()
        assert here.state(member) == "sent"
        assert len(here.fake_fcm.posts(member)) == 1
        (events,) = here.db.execute("SELECT count(*) AS n FROM operator_events WHERE action = 'schedule.run'")
        assert events["n"] == 1
    finally:
        here.db.execute("DELETE FROM schedules")
        here.db.execute("DELETE FROM operator_events")
        here.db.execute("UPDATE devices SET deleted_at = now(), fcm_token = NULL, alias = id")
