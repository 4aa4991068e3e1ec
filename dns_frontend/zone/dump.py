"""A zone back to master-file text: one record a line, nothing relative, no other file needed. PURE."""

from collections.abc import Iterator

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
        rdata = dns.rdata.from_wire(dns.rdataclass.IN, rtype, wire, 0, len(wire))
        yield f"{to_text(owner)} {rrset.ttl_s} IN {dns.rdatatype.to_text(rtype)} {rdata.to_text()}"
