"""Who asks, as quotas know it: the service that calls.

With mutual TLS it is what the client's certificate says: of a URI the last part, of a DNS name the first label, else
the common name. Without a certificate it is what the client says itself: a call in its metadata `gslb-caller`, our channels
for all of theirs in the user agent (`caller=` or GSLB_SERVICE). That is good enough among programs that mean well, and no
protection against one that does not.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from bns.transport import ANONYMOUS, principal_of
from gslb.rpc.context import AGENT_KEY, CALLER_KEY, Metadatum

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_AGENT: Final = re.compile(rf"{CALLER_KEY}/({_LABEL.pattern})(?= |\Z)", re.ASCII)


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
    agent = ""
    for key, value in context.invocation_metadata() or ():
        if key == CALLER_KEY:
            return _label(value)
        if key == AGENT_KEY and isinstance(value, str):
            agent = value
    return of_agent(agent)


def declared(metadata: Iterable[Metadatum]) -> str:
    """What this metadata says; empty: nothing, or no name.

    Not what a user agent says: in HTTP those are the browsers', and nothing in front of an application takes them away.
    """
    return next((_label(value) for key, value in metadata if key == CALLER_KEY), "")


def of_agent(agent: str) -> str:
    """What the user agent of one of our channels says; empty: it is another's.

    >>> of_agent("gslb-caller/web grpc-python/1.76.0"), of_agent("grpc-python/1.76.0")
    ('web', '')
    """
    found = _AGENT.match(agent)
    return found[1] if found is not None else ""


def _label(value: str | bytes) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return text if _LABEL.fullmatch(text) else ""


def named(principal: str) -> str:
    """The service that a certificate's identity names; empty: none.

    >>> named("spiffe://example.org/ns/prod/frontend"), named("frontend.prod.example.org"), named("Ann Smith")
    ('frontend', 'frontend', '')
    """
    last = principal.rstrip("/").rpartition("/")[2]
    text = last if "/" in principal else last.partition(".")[0]
    return text if _LABEL.fullmatch(text) else ""
