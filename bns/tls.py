"""Which certificates a process shows and trusts, and the flags that say so. No gRPC here: help must be quick."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from bns.errors import TlsError

_Decorated = TypeVar("_Decorated", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM. A server needs `cert` and `key`, and with `ca` it demands client certificates of that authority.

    A client trusts `ca` (none: the system's roots) and shows `cert` and `key` when it has them.
    """

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise TlsError("a certificate and its key go together: give both --tls-cert and --tls-key, or neither")

    @property
    def mutual(self) -> bool:
        """Whether a server with these files knows who its clients are."""
        return self.cert is not None and self.ca is not None


def tls_options(command: _Decorated) -> _Decorated:
    """Adds --tls-cert, --tls-key and --tls-ca to a click command, which gets them as `tls: Tls | None`."""

    @functools.wraps(command)
    def with_tls(
        *args: object, tls_cert: Path | None, tls_key: Path | None, tls_ca: Path | None, **kwargs: object
    ) -> object:
        given = tls_cert or tls_key or tls_ca
        try:
            tls = Tls(cert=tls_cert, key=tls_key, ca=tls_ca) if given else None
        except TlsError as error:
            raise click.UsageError(str(error)) from error
        return command(*args, tls=tls, **kwargs)

    wrapped: Callable[..., object] = with_tls
    for flag, text in (
        ("--tls-ca", "Certificate authority of the peers, PEM."),
        ("--tls-key", "Private key of --tls-cert, PEM."),
        ("--tls-cert", "Certificate of this process, PEM."),
    ):
        wrapped = click.option(flag, type=click.Path(path_type=Path), metavar="FILE", help=text)(wrapped)
    return wrapped  # type: ignore[return-value]  # click keeps the signature, its types do not
