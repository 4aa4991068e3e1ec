"""What goes into the additional section with an answer: laid out when a zone is loaded, so that a query looks nothing up.

For NS, MX and SRV: the addresses of their targets (RFC 1035 section 3.3.9, RFC 2782). For SVCB and HTTPS: those, and in
AliasMode the records of the same type at the target, one alias after the other (RFC 9460 section 4.1). As far as the same
zone has them, a wildcard's included. Never what a plan answers: that depends on the client, and the scope of the answer is
that of its question. PURE.
"""

from collections.abc import Mapping
from typing import Final

from dns_frontend.limits import EXTRAS_MAX
from dns_frontend.table.model import OwnedRRset
from dns_frontend.zone.name import ROOT, WILDCARD, is_under
from dns_frontend.zone.records import RRset, RRsets, ZoneData
from dns_frontend.zone.rtype import ADDRESS_TYPES
from dns_frontend.zone.targets import SVCB_TYPES, TARGET_TYPES, is_alias, target_of

Planned = Mapping[bytes, frozenset[int]]  # by name, the types that plans answer there
_ADDRESSES: Final = tuple(sorted(ADDRESS_TYPES))


def extras_of(name: bytes, rrsets: RRsets, data: ZoneData, planned: Planned) -> Mapping[int, tuple[OwnedRRset, ...]]:
    """By type of answer at `name`."""
    return {
        rtype: found
        for rtype in TARGET_TYPES & rrsets.keys()
        if (found := tuple(_Collecting(data, planned).of(name, rrsets[rtype])))
    }


class _Collecting:
    """The extras of one RRset while they are being found: each owner and type once, EXTRAS_MAX at most."""

    def __init__(self, data: ZoneData, planned: Planned) -> None:
        self._data = data
        self._planned = planned
        self._found: dict[tuple[bytes, int], OwnedRRset] = {}

    def of(self, name: bytes, rrset: RRset) -> list[OwnedRRset]:
        self._follow(name, rrset)
        return list(self._found.values())[:EXTRAS_MAX]

    def _follow(self, name: bytes, rrset: RRset) -> None:
        for rdata in rrset.rdatas:
            if len(self._found) >= EXTRAS_MAX:
                return
            target = target_of(rrset.rtype, rdata)
            if target == ROOT and rrset.rtype in SVCB_TYPES and not is_alias(rdata):
                # "." is the owner itself; a wildcard's owner is known only when it is asked for.
                target = None if name.startswith(WILDCARD) else name
            if target is None or not is_under(target.lower(), self._data.origin):
                continue
            known = self._data.match(target.lower())
            if known is None:
                continue
            if rrset.rtype in SVCB_TYPES and is_alias(rdata):
                self._alias(target, known, rrset.rtype)
            self._add(target, known, _ADDRESSES)

    def _alias(self, target: bytes, known: RRsets, rtype: int) -> None:
        planned = self._planned.get(target.lower(), frozenset())
        if rtype in known and rtype not in planned and (target.lower(), rtype) not in self._found:
            self._add(target, known, (rtype,))
            self._follow(target.lower(), known[rtype])

    def _add(self, owner: bytes, known: RRsets, rtypes: tuple[int, ...]) -> None:
        planned = self._planned.get(owner.lower(), frozenset())
        for rtype in rtypes:
            if rtype in known and rtype not in planned:
                self._found.setdefault((owner.lower(), rtype), OwnedRRset(owner, known[rtype]))
