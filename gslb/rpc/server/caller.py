"""Who asks, as quotas know it: the service that calls.

With mutual TLS it is what the client's certificate says: of a URI the last part, of a DNS name the first label, else
the common name. Without a certificate it is what the client says itself, in the metadata `gslb-caller` that our channels
send (`caller=` or GSLB_SERVICE): good enough among programs that mean well, and no protection against one that does not.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from bns.transport import ANONYMOUS, principal_of
from gslb.rpc.context import CALLER_KEY, Metadatum

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


class CalledContext(Protocol):
    """What is used of a servicer context, of sync and asyncio servers."""

    def invocation_metadata(self) -> Iterable[Metadatum] | None: ...
    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...


def caller_of(context: CalledContext) -> str:
    """The calling service's name; empty: it has none that could be one."""
    # That of plain functions in an asyncio server lacks it.
    principal = principal_of(context) if hasattr(context, "auth_context") else ANONYMOUS
    if principal != ANONYMOUS:
        return named(principal)
    return declared(context.invocation_metadata() or ())


def declared(metadata: Iterable[Metadatum]) -> str:
    """What a client says of itself; empty: nothing, or no name."""
    for key, value in metadata:
        if key == CALLER_KEY:
            text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
            return text if _LABEL.fullmatch(text) else ""
    return ""


def named(principal: str) -> str:
    """The service that a certificate's identity names; empty: none.

    >>> named("spiffe://example.org/ns/prod/frontend"), named("frontend.prod.example.org"), named("Ann Smith")
    ('frontend', 'frontend', '')
    """
    last = principal.rstrip("/").rpartition("/")[2]
    text = last if "/" in principal else last.partition(".")[0]
    return text if _LABEL.fullmatch(text) else ""
