"""A command whose --help lists its options in groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Any], Any]


class GroupedCommand(click.Command):
    """Lists options by the group that `in_group` gave them, in the order of the groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "help_group", "Other"), []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)


def in_group(name: str, *decorators: Decorator) -> Decorator:
    """Apply option decorators, in reading order, and put what they add into a help group."""

    def apply(function: Any) -> Any:
        before = set(map(id, getattr(function, "__click_params__", [])))
        for decorate in reversed(decorators):
            function = decorate(function)
        for parameter in getattr(function, "__click_params__", []):
            if id(parameter) not in before:
                parameter.help_group = name
        return function

    return apply
