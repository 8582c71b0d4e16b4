"""Groups of commands, which are built when they are used, so that `whirl --help` is fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from whirl.cli.errors import report_errors

Command = Callable[..., None]


def make_group(name: str, text: str, *members: Any) -> typer.Typer:
    """Make a group of commands and of other groups.

    Args:
        name: name of the group.
        text: its description.
        *members: functions with typer's annotations, whose docstrings describe them, and other groups.
    """
    cls = type("Group", (_Group,), {"members": {member.__name__: member for member in members}})
    group: Any = typer.Typer(
        name=name, help=text, cls=cls, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    group.__name__, group.__doc__ = name, text  # as of a function
    return group


class _Group(TyperGroup):
    members: Mapping[str, Any] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: dict[str, Any] = dict.fromkeys(self.members)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.members)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.members and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _build(cmd_name, self.members[cmd_name])
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, member.__doc__) for name, member in self.members.items()])


def _build(name: str, member: Any) -> Any:
    if isinstance(member, typer.Typer):
        return get_group(member)
    if hasattr(member, "sources"):
        from whirl.runs.command_options import add_options, options_of

        member = add_options(member, *options_of(member.sources))
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command(name)(report_errors(member))
    return get_command(app)


def with_options(*sources: str) -> Callable[[Command], Command]:
    """Give a command an option for every setting of some sections, which it gets as `options`.

    Args:
        *sources: sections of the configuration, or module and name of another section.
    """

    def mark(command: Command) -> Command:
        command.sources = sources  # type: ignore[attr-defined]  # importing them takes long
        return command

    return mark
