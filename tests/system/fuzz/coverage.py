"""Fuzz one target with atheris, guided by coverage: `python -m tests.system.fuzz.coverage TARGET [OPTIONS]`.

libFuzzer's limits turn a hang (-timeout) and memory use (-rss_limit_mb) into findings, which end the process.
Needs requirements/extra.txt and Python below 3.14.
"""

import logging
import sys

import atheris

# Only the fuzzed code is instrumented: the parsers, not the drivers of PostgreSQL or AWS.
with atheris.instrument_imports(include=["nexmdm", "functions.apk_builds", "local.gateway.payload"]):
    from tests.system.fuzz.targets import TARGETS


def main() -> None:
    name, *rest = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    atheris.Setup([sys.argv[0], *rest], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
