"""A zone back to master-file text: one record a line, nothing relative, no other file needed. PURE."""

from collections.abc import Iterator

import dns.exception
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from dns_frontend.zone.name import to_text
from dns_frontend.zone.records import RRset, ZoneData
from dns_frontend.zone.rtype import RType


def zone_text(data: ZoneData) -> str:
    """What `parse_zone` reads as the same zone; the SOA first."""
    return "".join(f"{line}\n" for line in _lines(data))


def _lines(data: ZoneData) -> Iterator[str]:
    yield from _records(data.spelled.get(data.origin, data.origin), data.soa)
    for name, rrsets in data.nodes.items():
        for rrset in rrsets.values():
            if rrset.rtype != RType.SOA:
                yield from _records(data.spelled.get(name, name), rrset)


def _records(owner: bytes, rrset: RRset) -> Iterator[str]:
    rtype = dns.rdatatype.RdataType(rrset.rtype)
    for wire in rrset.rdatas:
        yield f"{to_text(owner)} {rrset.ttl_s} IN {dns.rdatatype.to_text(rtype)} {rdata_text(rrset.rtype, wire)}"


def rdata_text(rtype: int, rdata: bytes) -> str:
    """The data of a record as master files have it; in the form of RFC 3597 what is not as its type wants it."""
    try:
        return dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.RdataType(rtype), rdata, 0, len(rdata)).to_text()
    except dns.exception.DNSException:
        return f"\\# {len(rdata)} {rdata.hex()}"
