"""Answers to octets, with name compression (RFC 1035 section 4.1.4).

Own code and not dnslib's buffer, which writes a broken pointer for a name beyond the first 16 kB of a message. Suffixes
are found again in the exact case only, so that the case of a question and of a zone's text comes back as it was.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from dns_frontend.limits import HEADER_OCTETS
from dns_frontend.table.model import OwnedRRset
from dns_frontend.zone.records import RRset
from dns_frontend.zone.rtype import CLASS_IN, COMPRESSIBLE_NAMES

_HEADER: Final = struct.Struct("!HHHHHH")
_RECORD_TAIL: Final = struct.Struct("!HHIH")
_LENGTH: Final = struct.Struct("!H")
_POINTER_MAX: Final = 0x3FFF


class Writer:
    """One message in the making: header, question, then records section by section; records up to `limit` octets."""

    __slots__ = ("_limit", "_offsets", "out")

    def __init__(self, question: bytes, name: bytes, limit: int) -> None:
        self._limit = limit
        self.out = bytearray(HEADER_OCTETS)
        self.out += question
        self._offsets: dict[bytes, int] = {}
        at = 0
        while name[at]:
            self._offsets[name[at:]] = HEADER_OCTETS + at
            at += 1 + name[at]

    def name(self, name: bytes) -> None:
        """A name, by a pointer to the longest suffix that was written before."""
        out, offsets = self.out, self._offsets
        at = 0
        while length := name[at]:
            suffix = name[at:]
            known = offsets.get(suffix)
            if known is not None:
                out += _LENGTH.pack(0xC000 | known)
                return
            if len(out) <= _POINTER_MAX:
                offsets[suffix] = len(out)
            out += name[at : at + 1 + length]
            at += 1 + length
        out.append(0)

    def section(self, rrsets: Iterable[OwnedRRset]) -> tuple[int, bool]:
        """As many whole RRsets as fit; how many records they are, and whether all did. Nothing may follow if not."""
        written = 0
        for owner, rrset in rrsets:
            begin = len(self.out)
            if not self.rrset(owner, rrset):
                del self.out[begin:]
                return written, False
            written += len(rrset.rdatas)
        return written, True

    def rrset(self, owner: bytes, rrset: RRset) -> bool:
        """All records of a set; False, and the last ones missing, when they do not fit: the caller takes them back."""
        out, limit = self.out, self._limit
        layout = COMPRESSIBLE_NAMES.get(rrset.rtype)
        for rdata in rrset.rdatas:
            self.name(owner)
            out += _RECORD_TAIL.pack(rrset.rtype, CLASS_IN, rrset.ttl_s, len(rdata))
            if layout is None:
                out += rdata
            else:
                begin = len(out)
                self._compressed(rdata, *layout)
                _LENGTH.pack_into(out, begin - _LENGTH.size, len(out) - begin)
            if len(out) > limit:
                return False
        return True

    def _compressed(self, rdata: bytes, before: int, names: int) -> None:
        self.out += rdata[:before]
        at = before
        for _ in range(names):
            end = at
            while rdata[end]:
                end += 1 + rdata[end]
            self.name(rdata[at : end + 1])
            at = end + 1
        self.out += rdata[at:]

    def finish(self, ident: int, flags: int, counts: Sequence[int]) -> bytes:
        """The message, its header filled in; `counts` of the four sections."""
        _HEADER.pack_into(self.out, 0, ident, flags, *counts)
        return bytes(self.out)


def header_only(ident: int, flags: int, additionals: int = 0) -> bytes:
    """A message without question, answer and authority."""
    return _HEADER.pack(ident, flags, 0, 0, 0, additionals)
