"""The commands by their names, each in a module that is loaded when it is needed."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

import click

import lsst_lfa

from .command import message_options
from .output import discard_output

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cli", "run_group"]

# In the order of the help.
_MODULES: Final = {
    "put": "transfers",
    "get": "transfers",
    "cat": "transfers",
    "ls": "objects",
    "stat": "objects",
    "rm": "objects",
    "share": "objects",
    "header": "header",
    "preview": "preview",
    "check": "check",
    "spool": "spool",
    "uploads": "uploads",
    "sites": "sites",
    "mock": "mock",
}


class _Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _MODULES:
            return None
        found = getattr(import_module(f"{__package__}.{_MODULES[cmd_name]}"), cmd_name)
        assert isinstance(found, click.Command)  # noqa: S101 - for the type checker
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "" in args and not ctx.resilient_parsing:  # as a path it would be the current folder
            raise click.UsageError("an argument is empty: is a variable not set?", ctx)
        return super().parse_args(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(lsst_lfa.__version__, prog_name="lsst-lfa")
def cli() -> None:
    """Work with the observatory's large files.

    A TARGET is any URL of an object (https://, s3://, presigned, file://), or
    a key with --bucket and, if need be, --site. Credentials come from the
    environment or a profile, as for the AWS tools.

    Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 refused, 5 unreachable.
    """


cli.params += message_options()


def run_group(arguments: Sequence[str] | None) -> int:
    """Run a command by the arguments, by default the process's; return the exit code."""
    _prepare_streams()
    try:
        return cli.main(arguments, prog_name="lsst-lfa", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except OSError as error:  # the disk under the standard output is full
        sys.stderr.write(f"lsst-lfa: {error}\n")
        return 1
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # reported already
            discard_output()


def _prepare_streams() -> None:
    """Let nothing that is written fail by its place: not if that is closed, nor if a name cannot be shown there."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever began this process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - until the process ends
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
