"""Removes each protection of the dispatch in turn: model/mutants.toml."""

import tomllib
from typing import Any, NamedTuple

from model import spin


class Mutant(NamedTuple):
    """A removed protection; the names are those of mutants.toml."""

    name: str
    without: list[str]
    bounds: dict[str, int]
    evidence: str
    patch: tuple[dict[str, Any], ...] = ()
    only_messages: bool = False
    constraint: str | None = None
    uncommitted: bool = False

    def counterexample(self) -> spin.Verdict:
        """The shortest counterexample in the model."""
        without = [*self.without, *(["ONLY_MESSAGES"] if self.only_messages else [])]
        return spin.check(spin.Run(self.name, self.bounds), without=without, shortest=True)


def load() -> list[Mutant]:
    return [Mutant(**entry) for entry in tomllib.loads((spin.HERE / "mutants.toml").read_text())["mutant"]]
