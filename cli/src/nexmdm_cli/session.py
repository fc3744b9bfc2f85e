"""The parts that all commands share: options for the stack, `--json`, an API client, and exit codes for failures."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from nexmdm_cli import stack
from nexmdm_cli.api import Api
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.output import Output
from nexmdm_cli.stack import Choice

F = TypeVar("F", bound=Callable[..., None])
_PANEL = "Common options"
Url = Annotated[
    str | None,
    typer.Option(envvar="NEXMDM_URL", help="The stack's URL.", rich_help_panel=_PANEL, metavar="https://…"),
]
Local = Annotated[bool, typer.Option("--local", help="The stack of `make run`.", rich_help_panel=_PANEL)]
Profile = Annotated[str | None, typer.Option(help="The AWS profile to sign with.", rich_help_panel=_PANEL)]
Region = Annotated[str | None, typer.Option(help="The stack's AWS region.", rich_help_panel=_PANEL)]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON to stdout.", rich_help_panel=_PANEL)]


class Session:
    """One run of a command."""

    def __init__(self, choice: Choice, out: Output) -> None:
        self._choice, self.out = choice, out

    @functools.cached_property
    def api(self) -> Api:
        return Api(stack.find(self._choice))

    def close(self) -> None:
        if "api" in vars(self):
            self.api.close()

    def confirm(self, question: str, yes: bool) -> None:
        """Continue only after confirmation.

        Raises:
            Failure: the user declined, or there is no terminal to ask on.
        """
        if yes:
            return
        if self.out.as_json or not self.out.notes.is_terminal:
            raise Failure(f"{question} There is no terminal to confirm it on.", Code.USAGE, "Confirm with --yes.")
        if not typer.confirm(question, err=True):
            raise Failure("Nothing was changed.")


def prose(text: str) -> str:
    """A docstring formatted for `--help`: paragraphs are unwrapped; examples, after `\\b`, are unchanged."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        part.replace("\b\n", "\b\nExamples\n") if part.startswith("\b") else " ".join(part.split())
        for part in paragraphs
    )


def _options(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """The options that a parameter stands for."""
    group = parameter.annotation
    if not is_dataclass(group):
        return [parameter]
    types = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=types[field.name]
        )
        for field in fields(group)
    ]


def command(app: typer.Typer, name: str | None = None, *, of_stack: bool = True, **options: Any) -> Callable[[F], F]:
    """`app.command` with the common options of every command.

    The decorated function gets a `Session` first. Each field of a parameter whose type is a dataclass becomes an
    option. of_stack: whether the command uses a stack; if not, only --json is added.
    """

    def add(function: F) -> F:
        signature = inspect.signature(function, eval_str=True)
        declared = list(signature.parameters.values())[1:]
        groups: dict[str, type[Any]] = {
            parameter.name: group
            for parameter in declared
            if is_dataclass(group := parameter.annotation) and isinstance(group, type)
        }
        own = [option for parameter in declared for option in _options(parameter)]
        common: dict[str, tuple[Any, object]] = {"as_json": (Json, False)}
        if of_stack:
            common |= {
                "url": (Url, None),
                "local": (Local, False),
                "profile": (Profile, None),
                "region": (Region, None),
            }

        @functools.wraps(function)
        def run(**values: Any) -> Any:
            given = {option: values.pop(option) for option in common}
            for name, group in groups.items():
                values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
            out = Output(given.pop("as_json"))
            session = Session(Choice(**given), out)
            try:
                return function(session, **values)
            except Failure as failure:
                out.error(failure.message, failure.hint)
                raise typer.Exit(failure.code) from None
            finally:
                session.close()

        added = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=type_)
            for option, (type_, default) in common.items()
        ]
        keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        # typer reads both.
        vars(run)["__signature__"] = signature.replace(parameters=[*keyword, *added], return_annotation=None)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*keyword, *added]}
        app.command(name, help=prose(function.__doc__ or ""), **options)(run)
        return function

    return add
