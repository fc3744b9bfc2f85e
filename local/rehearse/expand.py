"""The template as CloudFormation receives it: SAM's transform, run offline with the SAM CLI's own Python."""

import json
import subprocess
from pathlib import Path

from local import template
from local.template import Node

PYTHON = template.TEMPLATE.parent / ".venv-build" / "bin" / "python"
# SAM accepts only artifacts in S3, to which `sam deploy` uploads them.
_TRANSFORM = """
import json, sys
from samtranslator.translator.transform import transform
document = json.load(sys.stdin)
for resource in document["Resources"].values():
    for name in ("CodeUri", "ContentUri"):
        if name in resource.get("Properties", {}):
            resource["Properties"][name] = "s3://artifacts/" + resource["Properties"][name].replace("/", "-")
class Managed:
    def load(self): return {name: "arn:aws:iam::aws:policy/service-role/" + name for name in sys.argv[1:]}
json.dump(transform(document, {}, Managed()), sys.stdout)
"""
MANAGED = ("AWSLambdaBasicExecutionRole", "AWSLambdaVPCAccessExecutionRole", "AWSXRayDaemonWriteAccess")


def expanded(python: Path = PYTHON) -> Node:
    """Raises:
    RuntimeError: SAM rejects the template; the text has its message.
    """
    given = json.dumps(template.document(), default=str)
    run = subprocess.run(
        [str(python), "-c", _TRANSFORM, *MANAGED],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        env={"AWS_DEFAULT_REGION": "eu-west-1", "PATH": "/usr/bin:/bin", "SAM_CLI_TELEMETRY": "0"},
    )
    if run.returncode:
        raise RuntimeError(run.stderr[-2000:])
    document: Node = json.loads(run.stdout)
    return document
