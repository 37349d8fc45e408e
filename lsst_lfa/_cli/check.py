"""``check``: whether the service works, and if not, what is wrong."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from .command import TARGET_OPTIONS, add_options, command, json_option

if TYPE_CHECKING:
    from .checks import Finding
    from .output import Output

__all__ = ["check"]

_STYLES = {"OK": "green", "failed": "bold red", "not tried": "dim"}


@command(short_help="Check whether the service works, and if not, say how to fix it.")
@click.argument("target", metavar="[s3://BUCKET]", required=False)
@click.option("--write", is_flag=True, help="Also write a small object, read it back, and delete it.")
@click.option(
    "--timeout",
    "limit",
    metavar="SECONDS",
    type=click.FloatRange(min=0, max=3600, min_open=True),
    default=5.0,
    show_default=True,
    help="How long to wait for a connection, and for a response.",
)
@add_options(TARGET_OPTIONS)
@json_option
async def check(
    output: Output,
    *,
    target: str | None,
    write: bool,
    limit: float,
    site: str | None,
    bucket: str | None,
    profile: str | None,
    as_json: bool,
) -> None:
    """Check the service; each line says whether one thing works and, if not, how to fix it.

    By default this checks the bucket of the site's annex. The exit code is
    that of the worst line: 2 a setting is wrong, 3 no such bucket, 4 refused,
    5 unreachable.
    """
    from .checks import run_checks, worst
    from .runner import ToldError
    from .targets import Places

    findings = []
    async with aclosing(run_checks(Places(site, bucket, profile), target, write=write, limit=limit)) as checks:
        async for finding in checks:
            findings.append(finding)
            _tell(output, finding, as_json=as_json)
    error = worst(findings)
    if error is not None:
        raise ToldError from error


def _tell(output: Output, finding: Finding, *, as_json: bool) -> None:
    if as_json:
        facts = {"check": finding.name, "state": finding.state, "message": finding.message}
        output.json(facts | {"seconds": finding.seconds} if finding.seconds is not None else facts)
    elif finding.state == "failed" or not output.quiet:
        _tell_people(output, finding)
    output.flush()  # the next one may take seconds


def _tell_people(output: Output, finding: Finding) -> None:
    from .output import printable

    name, state, text = f"{finding.name:<12}", f"{finding.state:<11}", printable(finding.message)
    if not sys.stdout.isatty():
        output.line(f"{name}{state}{text}")
        return
    from rich.text import Text

    output.console().print(Text.assemble(name, (state, _STYLES[finding.state]), text), soft_wrap=True)
