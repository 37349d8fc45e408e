"""Creates commands from coroutine functions, with the options that they share."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from .output import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    _Work = Callable[..., Coroutine[Any, Any, None]]
    _Decorator = Callable[[Any], Any]

__all__ = ["TARGET_OPTIONS", "add_options", "command", "json_option", "message_options"]

_META = "lsst_lfa.messages"

TARGET_OPTIONS: Sequence[_Decorator] = (
    click.option("--site", metavar="SITE", help="The site whose service to use."),
    click.option("--bucket", metavar="BUCKET", help="The bucket, if the target is a key, not a URL."),
    click.option("--profile", metavar="NAME", help="A profile in the AWS configuration files."),
)
"""Where a target is: for `add_options`. The command takes ``site``, ``bucket`` and ``profile``."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each item.")
"""For machines: the command takes ``as_json``."""


def add_options(options: Sequence[_Decorator]) -> _Decorator:
    """Return a decorator that adds several options, in their order."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def command(**settings: Any) -> Callable[[_Work], click.Command]:
    """Make a command of a function whose first argument is the `Output`, and that returns a coroutine.

    The function imports what takes time, before there is an event loop. What
    the coroutine raises ends in a message and an exit code; see `runner`.
    """

    def decorate(function: _Work) -> click.Command:
        @click.pass_context
        @wraps(function)
        def call(context: click.Context, /, **arguments: Any) -> None:
            from .runner import run

            output = Output(**context.meta.get(_META, {}))
            context.exit(run(output, lambda: function(output, **arguments)))

        made: click.Command = click.command(**settings)(call)
        made.params += message_options()
        return made

    return decorate


def message_options() -> list[click.Parameter]:
    """Make the options for messages, which may stand before the command's name or after it."""

    def make(*names: str, **settings: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=_remember, **settings)

    return [
        make("-q", "--quiet", is_flag=True, help="Print only errors."),
        make("-v", "--verbose", count=True, help="Print more; -vv prints everything."),
        make("--debug", is_flag=True, help="Show the traceback of an error."),
    ]


def _remember(context: click.Context, option: click.Parameter, value: int) -> None:
    noted = context.meta.setdefault(_META, {})
    noted[option.name] = noted.get(option.name, 0) + value
