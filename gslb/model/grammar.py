"""What the texts inside resources must look like. PURE.

A grammar says what is wrong with a text in words that tell what to write instead; its pattern says the same, as far as
a regular expression can, to editors that read the JSON Schema.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from bns.names import InvalidNameError, check_label, parse_job
from gslb.model import limits
from gslb.model.quota import ANYBODY

_DNS_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_HOST_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ALPN = re.compile(rf"[A-Za-z0-9][A-Za-z0-9./_-]{{0,{limits.ALPN_MAX_CHARS - 1}}}")
_MACHINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
DNS_NAME_MAX_CHARS = 253  # RFC 1035 section 2.3.4, without the final dot


@dataclass(frozen=True, slots=True)
class Grammar:
    """`problem(text)` is None if the text is good, else what is wrong and what to write."""

    title: str
    problem: Callable[[str], str | None]
    pattern: str = ""


def shown(value: object, limit: int = 80) -> str:
    """A value as it stands in a message: quoted, bounded."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _by_name(check: Callable[[str], object]) -> Callable[[str], str | None]:
    """A grammar of BNS: the error's own words, they name the value and what is allowed."""

    def problem(text: str) -> str | None:
        try:
            check(text)
        except InvalidNameError as error:
            return str(error)
        return None

    return problem


def _label(text: str) -> str | None:
    problem = _by_name(lambda it: check_label(it, ""))(text)
    return problem.strip() if problem else None


def _optional_label(text: str) -> str | None:
    return _label(text) if text else None


def _caller(text: str) -> str | None:
    return None if text == ANYBODY else _label(text)


def _dns_name(text: str) -> str | None:
    if text != text.lower() or text.endswith("."):
        return f"{shown(text)} must be written in lower case and without the final dot"
    labels = text.split(".")
    if len(text) > DNS_NAME_MAX_CHARS or len(labels) < 2 or not all(_HOST_LABEL.fullmatch(label) for label in labels):
        return f"{shown(text)} is not a DNS name: write labels of a-z, 0-9 and '-' joined by dots, as www.example.com"
    return None


def _alpn(text: str) -> str | None:
    if _ALPN.fullmatch(text):
        return None
    return f"{shown(text)} is not a protocol's ALPN name: write h2, h3, http/1.1 or another of IANA's list"


def _zone_name(text: str) -> str | None:
    # A zone may be a top-level or reverse one: any labels, underscores too, one is enough.
    if text != text.lower() or text.endswith("."):
        return f"{shown(text)} must be written in lower case and without the final dot"
    if len(text) > DNS_NAME_MAX_CHARS or not all(re.fullmatch(_DNS_LABEL, label) for label in text.split(".")):
        return f"{shown(text)} is not the name of a zone: write its origin, as example.com"
    return None


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """A CIDR. Raises ValueError with what to write."""
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{shown(text)} is not a network: write it as 192.0.2.0/24 or 2001:db8::/32") from None
    raise ValueError(f"{shown(text)} has bits set beyond its prefix: write {meant}")


def _cidr(text: str) -> str | None:
    try:
        parse_network(text)
    except ValueError as error:
        return str(error)
    return None


def _line(text: str) -> str | None:
    if len(text) > limits.REASON_MAX_CHARS:
        return f"{shown(text)} has {len(text)} characters: at most {limits.REASON_MAX_CHARS} are kept"
    if not text.isprintable():
        return f"{shown(text)} has control characters: write one line of plain text"
    return None


def _said(text: str) -> str | None:
    return _line(text) if text.strip() else "is empty: say it in words"


def _records(text: str) -> str | None:
    size = len(text.encode(errors="surrogatepass"))
    if size > limits.ZONE_MAX_BYTES:
        return f"the records have {size} bytes: at most {limits.ZONE_MAX_BYTES} fit in one zone"
    bad = next((char for char in text if not char.isprintable() and char not in "\t\r\n"), None)
    return f"the records have the control character {bad!r}: write RFC 1035 master-file text" if bad else None


def _machine(text: str) -> str | None:
    if _MACHINE.fullmatch(text):
        return None
    return f"{shown(text)} is not a machine: use up to 128 letters, digits and '.', '_', ':' or '-'"


_LABEL_PATTERN = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"

LABEL = Grammar("a DNS label", _label, f"^{_LABEL_PATTERN}$")
OPTIONAL_LABEL = Grammar("a DNS label, or nothing", _optional_label, f"^({_LABEL_PATTERN})?$")
CALLER = Grammar("a DNS label, or `*`", _caller, rf"^({_LABEL_PATTERN}|\*)$")
DNS_NAME = Grammar("a DNS name", _dns_name, rf"^{_LABEL_PATTERN}(\.{_LABEL_PATTERN})+$")
ALPN = Grammar("a protocol's ALPN name", _alpn, rf"^{_ALPN.pattern}$")
ZONE_NAME = Grammar("the origin of a zone", _zone_name, rf"^{_DNS_LABEL}(\.{_DNS_LABEL})*$")
JOB = Grammar("a BNS job", _by_name(parse_job), f"^/bns/{_LABEL_PATTERN}/{_LABEL_PATTERN}/{_LABEL_PATTERN}$")
CIDR = Grammar("a network in CIDR notation", _cidr)
LINE = Grammar("one line of text", _line)
SAID = Grammar("one line of text, not empty", _said, r"\S")
RECORDS = Grammar("RFC 1035 master-file text", _records)
MACHINE = Grammar("a machine's id", _machine, rf"^{_MACHINE.pattern}$")
