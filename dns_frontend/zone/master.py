"""RFC 1035 master-file text to a `ZoneData`, checked. PURE.

The grammar and the rdata of every type are dnspython's (unknown types as RFC 3597 writes them). Two of its habits are
turned off, for both would lose what the operator wrote without a word: it skips records outside the zone, and a second
CNAME replaces the first. Directives that read files or multiply lines ($INCLUDE, $GENERATE) are not allowed: the text
comes over the network. Whatever else hostile text makes the parser raise, the text is refused.
"""

from typing import Final

import dns.exception
import dns.name
import dns.node
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.tokenizer
import dns.transaction
import dns.zone
import dns.zonefile
from typing_extensions import override

from dns_frontend.limits import RRSET_MAX_OCTETS
from dns_frontend.zone.name import BadNameError, from_text
from dns_frontend.zone.records import RRset, ZoneData
from dns_frontend.zone.rtype import META_TYPES, RType

_DIRECTIVES: Final = frozenset({"$TTL", "$ORIGIN"})
TTL_MAX_S: Final = 2**31 - 1  # RFC 2181 section 8
ZONE_TEXT_MAX_CHARS: Final = 4_000_000
RECORD_OVERHEAD_OCTETS: Final = 12  # a compressed owner, type, class, TTL and length


class BadZoneError(ValueError):
    """The text is not a zone that can be served; the message has NAME:LINE where there is one, and the reason."""


class _Reader(dns.zonefile.Reader):
    """dnspython's reader, without its silence about records outside the zone, and with the line a record began on."""

    @override
    def _eat_line(self) -> None:  # called for nothing else
        raise BadZoneError(f"{self.last_name} is outside the zone {self.zone_origin}")

    @override
    def _rr_line(self) -> None:
        name, line = self.tok.where()
        try:
            super()._rr_line()
        except Exception as error:
            raise BadZoneError(f"{name}:{line}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error) or "this is not a record"
    return text if isinstance(error, dns.exception.SyntaxError | BadZoneError) else f"{type(error).__name__}: {text}"


def parse_zone(origin_text: str, text: str) -> ZoneData:
    """The zone named `origin_text`. Raises BadZoneError."""
    try:
        origin = from_text(origin_text)
    except BadNameError as error:
        raise BadZoneError(f"zone {origin_text!r}: {error}") from error
    if len(text) > ZONE_TEXT_MAX_CHARS:
        raise BadZoneError(f"zone {origin_text!r} has {len(text)} characters: {ZONE_TEXT_MAX_CHARS} are allowed")
    zone = _read(origin_text, origin, text)
    nodes = {
        name.to_digestable(): {int(rdataset.rdtype): _rrset(origin_text, name, rdataset) for rdataset in node}
        for name, node in zone.nodes.items()
        if name.is_absolute()
    }
    data = ZoneData(origin.lower(), nodes)
    _check(origin_text, data)
    return data


def _read(origin_text: str, origin: bytes, text: str) -> dns.zone.Zone:
    zone = dns.zone.Zone(dns.name.from_wire(origin, 0)[0], relativize=False)
    tokens = dns.tokenizer.Tokenizer(text, origin_text)
    try:
        with zone.writer(True) as transaction:
            transaction.check_put_rdataset(_check_singleton)
            _Reader(tokens, dns.rdataclass.IN, transaction, allow_directives=_DIRECTIVES).read()
    except BadZoneError:
        raise
    except dns.exception.SyntaxError as error:
        raise BadZoneError(str(error)) from error  # has NAME:LINE already
    except Exception as error:
        raise BadZoneError(f"{origin_text}: {_reason(error)}") from error
    return zone


def _check_singleton(
    transaction: dns.transaction.Transaction, name: dns.name.Name, rdataset: dns.rdataset.Rdataset
) -> None:
    """A name has one CNAME, one DNAME, one SOA: another one is an error, not a replacement."""
    if not dns.rdatatype.is_singleton(rdataset.rdtype):
        return
    known = transaction.get(name, rdataset.rdtype)
    if known is not None and known != rdataset:
        kind = dns.rdatatype.to_text(rdataset.rdtype)
        raise BadZoneError(f"{name} has two different {kind} records: one is allowed")


def _rrset(origin_text: str, name: dns.name.Name, rdataset: dns.rdataset.Rdataset) -> RRset:
    kind = dns.rdatatype.to_text(rdataset.rdtype)
    if int(rdataset.rdtype) in META_TYPES or int(rdataset.rdtype) == 0:
        raise BadZoneError(f"{origin_text}: {name} {kind}: this type cannot be the type of a record in a zone")
    if rdataset.ttl > TTL_MAX_S:
        raise BadZoneError(f"{origin_text}: {name} {kind}: TTL {rdataset.ttl} is above {TTL_MAX_S}")
    try:
        rdatas = tuple(dict.fromkeys(rdata.to_wire() or b"" for rdata in rdataset))
    except Exception as error:
        raise BadZoneError(f"{origin_text}: {name} {kind}: {type(error).__name__}: {error}") from error
    octets = sum(len(rdata) + RECORD_OVERHEAD_OCTETS for rdata in rdatas)
    if octets > RRSET_MAX_OCTETS:
        raise BadZoneError(f"{origin_text}: {name} {kind}: {octets} octets of records do not fit into one answer")
    return RRset(int(rdataset.rdtype), int(rdataset.ttl), rdatas)


def _check(origin_text: str, data: ZoneData) -> None:
    """What every zone has: an SOA and name servers at its top. (dnspython refuses an SOA elsewhere.)"""
    top = data.nodes.get(data.origin, {})
    if RType.SOA not in top:
        raise BadZoneError(f"{origin_text}: there is no SOA record at the top of the zone")
    if RType.NS not in top:
        raise BadZoneError(f"{origin_text}: there is no NS record at the top of the zone")
