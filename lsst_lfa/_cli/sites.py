"""``sites``: where each S3 service is, and which one is used here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .command import command, json_option

if TYPE_CHECKING:
    from .output import Output

__all__ = ["sites"]


@command()
@json_option
async def sites(output: Output, *, as_json: bool) -> None:
    """List the observatory's sites; a star marks that of LSST_SITE.

    More sites come from the TOML file in LSST_LFA_SITES.
    """
    from dataclasses import asdict

    from lsst_lfa._transfer.concurrency import in_thread
    from lsst_lfa.sites import known

    here = os.environ.get("LSST_SITE", "").strip().lower()
    found = sorted((await in_thread(known)).values(), key=lambda site: site.name)
    if as_json:
        for site in found:
            output.json(asdict(site) | {"current": site.name == here})
        return
    rows = [
        (
            "*" if site.name == here else "",
            site.name,
            site.endpoint_url or "-",
            site.instance,
            ", ".join(site.mirrors) or "-",
            site.tenant or "-",
        )
        for site in found
    ]
    output.table(("", "SITE", "SERVICE", "INSTANCE", "HAS COPIES OF", "TENANT"), rows)
    _say_what_counts(output, here, {site.name for site in found})


def _say_what_counts(output: Output, here: str, known: set[str]) -> None:
    """Say which service is used where a command names none."""
    endpoint = os.environ.get("S3_ENDPOINT_URL", "").strip()
    if here and here not in known:
        output.error(f"LSST_SITE is {here}, which is none of these")
    if endpoint:
        from lsst_lfa._urls import clean_endpoint

        output.note(f"S3_ENDPOINT_URL is set, so without --site it is {clean_endpoint(endpoint)}")
    elif not here:
        output.note("neither LSST_SITE nor S3_ENDPOINT_URL is set: pass --site, or a URL that names the service")
