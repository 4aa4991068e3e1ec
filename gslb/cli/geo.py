"""`gslb geo`: databases of where addresses are."""

import ipaddress
from datetime import UTC, datetime
from pathlib import Path

import click

from gslb.cli.output import Column, say, show, with_format
from gslb.geo.files import GeoFileError, load
from gslb.geo.files import install as install_file
from gslb.geo.mmdb import BadMmdbError
from gslb.geo.places import GeoDatabase

_COLUMNS = tuple(Column(key, key) for key in ("address", "prefix", "country", "latitude", "longitude", "by"))
_TERMS = "Keep to the terms of whoever made it: DB-IP Lite wants a link back (CC BY 4.0), GeoLite2 wants old copies destroyed."


@click.group(short_help="Install and ask geo databases.")
def geo() -> None:
    """Install and ask geo databases (.mmdb, of MaxMind's or DB-IP's schema)."""


@geo.command("install")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--to", "target", type=click.Path(dir_okay=False, path_type=Path), envvar="GSLB_GEO", required=True,
    show_envvar=True, metavar="FILE", help="Where `gslb dns --geo` reads it.",
)  # fmt: skip
def install(file: Path, target: Path) -> None:
    """Check a database on this machine, all of it, and put a copy in place of the one that frontends read.

    What is bad is refused, and the old one stays. Then `gslb dns reload`, or SIGHUP, has a frontend use it.
    """
    try:
        database = install_file(file, target)
    except GeoFileError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{target}: {_about(database)}")
    say(_TERMS)


@geo.command("lookup")
@click.argument("address")
@click.option(
    "--db", "file", type=click.Path(dir_okay=False, path_type=Path), envvar="GSLB_GEO", required=True,
    show_envvar=True, metavar="FILE", help="The database to ask.",
)  # fmt: skip
@with_format
def lookup(address: str, file: Path, output: str) -> None:
    """What a database says of an address. (`gslb explain dns` says what a frontend makes of it.)"""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise click.UsageError(f"{address[:80]!r} is not an IPv4 or IPv6 address") from error
    try:
        database = load(file)
        found = database.find(parsed)
    except (GeoFileError, BadMmdbError) as error:
        raise click.ClickException(str(error)) from error
    place = found.place
    where = place.coordinates if place is not None else None
    row: dict[str, object] = {
        "address": str(parsed),
        "prefix": str(found.prefix),
        "country": place.country if place is not None else "",
        "latitude": where.latitude if where is not None else None,
        "longitude": where.longitude if where is not None else None,
        "by": "" if place is None or where is None else "coordinates" if place.exact else "country",
    }
    show(output, [row], _COLUMNS)
    say(f"{file}: {_about(database)}")


def _about(database: GeoDatabase) -> str:
    metadata = database.database.metadata
    built = datetime.fromtimestamp(metadata.built_s, UTC)
    return f"{metadata.kind or 'a database'} of {built:%Y-%m-%d}, {database.networks} networks"
