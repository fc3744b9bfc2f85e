"""The workflows and the Makefile's release: pinned actions, who holds a token, and which region and credentials are
used."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.api import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TO_AWS = ("deploy", "release", "logs", "output", "e2e")


def workflow(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())


def steps(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") for step in job["steps"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_by_commit_and_names_its_version(path: Path):
    used = re.findall(r"uses: (.+)", path.read_text())
    assert used
    for action in used:
        local = re.fullmatch(r"\./\.github/workflows/[\w-]+\.yml", action)
        assert local or re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), f"{path.name}: {action}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_only_the_deploy_job_gets_a_token(path: Path):
    described = yaml.safe_load(path.read_text())
    assert described["permissions"] == {"contents": "read"}
    for name, job in described["jobs"].items():
        permissions = job.get("permissions", {})
        assert ("id-token" in permissions) == (path.stem == "deploy" and name == "deploy"), name
        assert set(permissions.values()) <= {"read", "write"}
        assert not {"contents", "packages", "actions"} & {key for key, value in permissions.items() if value == "write"}
        assert "secrets" not in job


def test_deployed_artifact_is_the_one_built_and_tested():
    jobs = workflow("deploy")["jobs"]
    assert set(jobs["deploy"]["needs"]) == {"ci", "build"}
    assert "environment" not in jobs["build"]
    assert jobs["deploy"]["environment"]
    assert "make release" in steps(jobs["deploy"])
    assert not re.search(r"make [^\n]*(?<![\w./-])(deploy|build|test)\b", steps(jobs["deploy"])), (
        "the job with a token also builds"
    )
    ci = workflow("ci")
    assert {"pull_request", "push", "workflow_call"} <= set(ci[True])  # YAML reads `on` as true
    assert ".ci/run" in steps(ci["jobs"]["check"])


def test_benchmark_is_compared_with_the_last_run_of_main():
    job = workflow("ci")["jobs"]["bench"]
    assert "make bench COMPARE=" in steps(job)
    assert "--strict" not in steps(job), "a shared runner must not judge absolute times"
    (kept,) = [step for step in job["steps"] if step.get("uses", "").startswith("actions/cache/save@")]
    (found,) = [step for step in job["steps"] if step.get("uses", "").startswith("actions/cache/restore@")]
    assert kept["if"] == "github.event_name == 'push'", "figures of a pull request must not become the reference"
    assert workflow("ci")[True]["push"] == {"branches": ["main"]}
    assert kept["with"]["path"] == found["with"]["path"]
    assert kept["with"]["key"].startswith(found["with"]["restore-keys"])


def test_every_release_step_uses_one_region():
    job = workflow("deploy")["jobs"]["deploy"]
    assert "AWS_REGION" in job["env"]
    (configured,) = [step["with"] for step in job["steps"] if "configure-aws-credentials" in step.get("uses", "")]
    assert configured["aws-region"] == "${{ env.AWS_REGION }}"
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    config.pop("version")
    for environment, commands in config.items():
        for command, section in commands.items():
            assert "region" not in section["parameters"], f"{environment}.{command} would beat AWS_REGION"


def make_variables(target: str, **environment: str) -> dict[str, str]:
    """The variables that make exports to the commands of a target."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    printed = subprocess.run(
        ["make", "--dry-run", "--print-data-base", target],
        cwd=ROOT, env={**clean, **environment}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return dict(re.findall(r"^(AWS_\w+) :?= (.*)$", printed, re.MULTILINE))


@pytest.mark.parametrize("target", TO_AWS)
def test_targets_that_call_aws_may_use_an_instance_role_and_have_one_region(target: str):
    assert "AWS_EC2_METADATA_DISABLED" not in make_variables(target)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        exported = make_variables(target, **{name: "us-east-1"})
        assert (exported["AWS_REGION"], exported["AWS_DEFAULT_REGION"]) == ("us-east-1", "us-east-1")


@pytest.mark.parametrize("target", ["test", "build", "run"])
def test_other_targets_cannot_use_an_instance_role(target: str):
    assert make_variables(target)["AWS_EC2_METADATA_DISABLED"] == "true"


def test_first_release_keeps_failed_resources():
    def commands(*arguments: str) -> str:
        run = ["make", "--dry-run", "release", *arguments]
        return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "--disable-rollback" in commands("ENV=dev", "FIRST=yes")
    assert "--disable-rollback" not in commands("ENV=dev")
    assert "--config-env prod --no-confirm-changeset" in commands("ENV=prod", "CONFIRM=no")
