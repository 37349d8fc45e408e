"""The observatory's sites: where each S3 service is, and how to read an event's URL from another site.

More sites come from the TOML file that ``LSST_LFA_SITES`` names, which has a
table for each site::

    [lab]
    endpoint_url = "https://s3.lab.example.org"
    instance = "lab"
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from . import _urls
from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SITES", "Site", "current", "known", "localize"]

_TEST: Final = "test"


@dataclass(frozen=True, slots=True)
class Site:
    """A site, and its S3 service.

    Attributes
    ----------
    name : `str`
        As in ``LSST_SITE``.
    endpoint_url : `str` or `None`
        Its S3 service; `None` for AWS, and for tests.
    instance : `str`
        The site in names of buckets: the ``s3instance`` of `lsst_lfa.salobj.AsyncS3Bucket.make_bucket_name`.
    mirrors : `tuple` [`str`, ...]
        Sites whose buckets can also be read here.
    tenant : `str`
        The Ceph tenant that owns the copies at this site; "" for none.
    """

    name: str
    endpoint_url: str | None
    instance: str
    mirrors: tuple[str, ...] = ()
    tenant: str = ""


SITES: Final[Mapping[str, Site]] = MappingProxyType(
    {
        site.name: site
        for site in (
            Site("summit", "https://s3.cp.lsst.org", "cp"),
            Site("base", "https://s3.ls.lsst.org", "ls"),
            Site("tucson", "https://s3.tu.lsst.org", "tuc"),
            Site("usdf", "https://s3dfrgw.slac.stanford.edu", "usdf", ("summit", "base", "tucson"), "rubin"),
            Site(_TEST, None, _TEST),
        )
    }
)
"""The sites that are known without a file, by name."""


def known() -> dict[str, Site]:
    """Return all sites by name: `SITES`, and those in the file that ``LSST_LFA_SITES`` names.

    A site in the file replaces one of the same name. The file is read on
    each call: it is short, but do not call this where nothing may block.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, or does not have this form.
    """
    path = os.environ.get("LSST_LFA_SITES", "").strip()
    return {**SITES, **(_read(Path(path)) if path else {})}


def current(site: str | None = None, *, endpoint_url: str | None = None, domock: bool = False) -> Site:
    """Return the site that this process is at.

    Parameters
    ----------
    site : `str`, optional
        Its name; by default ``LSST_SITE``. Case does not matter.
    endpoint_url : `str`, optional
        The S3 service; by default ``S3_ENDPOINT_URL``, otherwise that of the
        site.
    domock : `bool`, optional
        Whether the service will be a mock; its endpoint is then not checked.

    Returns
    -------
    site : `Site`
        The site, with the endpoint that is to be used.

    Raises
    ------
    ConfigurationError
        If no site is named or it is unknown, if ``S3_ENDPOINT_URL`` names a
        service other than the site's, or if the site is "test" and ``domock``
        is false.
    """
    name = (site or os.environ.get("LSST_SITE", "")).strip().lower()
    sites = known()
    if name not in sites:
        what = f"site {name!r} is unknown" if name else "no site is named: set LSST_SITE, or pass site"
        msg = (
            f"{what}. Known sites: {', '.join(sorted(sites))}. To add one, name a TOML file in LSST_LFA_SITES, with "
            f"a table for each site: [{name or 'lab'}], endpoint_url = ..., instance = ..."
        )
        raise ConfigurationError(msg)
    found = sites[name]
    if domock:
        return found
    if name == _TEST:
        raise ConfigurationError("site 'test' has no S3 service: pass domock=True, or name a real site in LSST_SITE")
    return replace(found, endpoint_url=_endpoint(found, endpoint_url))


def localize(url: str, site: str) -> str:
    """Return the URL by which an announced object can be read at another site.

    Parameters
    ----------
    url : `str`
        As in the event: ``{endpoint}/{bucket}/{key}`` of a known site.
    site : `str`
        The site from which it will be read.

    Returns
    -------
    url : `str`
        The URL of the copy, if that site has a copy of this bucket; otherwise
        ``url`` unchanged.

    Raises
    ------
    ConfigurationError
        If the site is unknown, or the URL does not belong to a known site.
    ValueError
        If it is not the URL of an object.
    """
    sites = known()
    here = sites.get(site.lower())
    endpoint, bucket, key = _urls.split_url(url)
    origin = next((each for each in sites.values() if each.endpoint_url == endpoint and endpoint), None)
    if here is None or origin is None:
        msg = (
            f"{f'site {site!r}' if here is None else f'the service {endpoint}'} is unknown. "
            f"Known sites: {', '.join(f'{each.name} ({each.endpoint_url})' for each in sites.values())}"
        )
        raise ConfigurationError(msg)
    if origin.name not in here.mirrors or here.endpoint_url is None:
        return url
    return _urls.object_url(here.endpoint_url, f"{here.tenant}:{bucket}" if here.tenant else bucket, key)


def _endpoint(site: Site, argument: str | None) -> str | None:
    if argument is not None:
        return _urls.clean_endpoint(argument)
    variable = _urls.clean_endpoint(os.environ.get("S3_ENDPOINT_URL"))
    if variable is None:
        return site.endpoint_url
    if site.endpoint_url not in {None, variable}:
        msg = (
            f"S3_ENDPOINT_URL is {variable}, but the service of site {site.name!r} is {site.endpoint_url}: "
            "unset one of S3_ENDPOINT_URL and LSST_SITE, or pass endpoint_url to say which is meant"
        )
        raise ConfigurationError(msg)
    return variable


def _read(path: Path) -> dict[str, Site]:
    try:
        tables = tomllib.loads(path.read_text())
        return {name.lower(): _site(name.lower(), table) for name, table in tables.items()}
    except (OSError, ValueError, TypeError, KeyError) as error:
        msg = f"LSST_LFA_SITES={path} cannot be used: {type(error).__name__}: {error}"
        raise ConfigurationError(msg) from error


def _site(name: str, table: Any) -> Site:
    allowed = {field.name for field in fields(Site)} - {"name"}
    if not isinstance(table, dict) or not set(table) <= allowed:
        msg = f"[{name}] must be a table of {', '.join(sorted(allowed))}"
        raise ValueError(msg)
    texts = [table["endpoint_url"], table["instance"], table.get("tenant", ""), *table.get("mirrors", ())]
    if not all(isinstance(text, str) for text in texts):
        msg = f"[{name}]: endpoint_url, instance and tenant must be text, mirrors a list of names"
        raise ValueError(msg)
    endpoint_url = _urls.clean_endpoint(table["endpoint_url"])
    return Site(name, endpoint_url, table["instance"], tuple(table.get("mirrors", ())), table.get("tenant", ""))
