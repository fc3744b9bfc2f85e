"""Fuzzes one target with atheris, guided by coverage: `python -m tests.system.fuzz.coverage TARGET [OPTIONS]`.

libFuzzer's own limits make a hang (-timeout) and memory (-rss_limit_mb) a find; a find ends the process with its input.
Needs requirements/extra.txt and Python below 3.14.
"""

import logging
import sys

import atheris

# What is fuzzed is what is instrumented: the parsers, not PostgreSQL's driver or AWS's.
with atheris.instrument_imports(include=["nexmdm", "functions.apk_builds", "local.gateway.payload"]):
    from tests.system.fuzz.targets import TARGETS


def main() -> None:
    name, *rest = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    atheris.Setup([sys.argv[0], *rest], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
