"""SipHash-2-4 (Aumasson and Bernstein, 2012), the hash of DNS cookies (RFC 9018 section 4.4). PURE.

Own code, for the standard library has no keyed hash that other servers of an anycast set would compute too; the test
vectors of the paper and of the RFC hold it.
"""

import struct
from typing import Final

KEY_OCTETS: Final = 16
_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF
_WORD: Final = struct.Struct("<Q")
_KEY: Final = struct.Struct("<QQ")


def siphash24(key: bytes, data: bytes) -> bytes:
    """The 8 octets of the hash of `data` under a key of 16 octets, in the order in which they travel."""
    k0, k1 = _KEY.unpack(key)
    v0, v1 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    v2, v3 = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    tail = len(data) % 8
    padded = data + bytes(7 - tail) + bytes((len(data) & 0xFF,))
    for (word,) in _WORD.iter_unpack(padded):
        v0, v1, v2, v3 = _rounds(v0, v1, v2, v3 ^ word, 2)
        v0 ^= word
    v0, v1, v2, v3 = _rounds(v0, v1, v2 ^ 0xFF, v3, 4)
    return _WORD.pack(v0 ^ v1 ^ v2 ^ v3)


def _rounds(v0: int, v1: int, v2: int, v3: int, count: int) -> tuple[int, int, int, int]:
    for _ in range(count):
        v0 = (v0 + v1) & _MASK
        v1 = ((v1 << 13) & _MASK | v1 >> 51) ^ v0
        v0 = (v0 << 32) & _MASK | v0 >> 32
        v2 = (v2 + v3) & _MASK
        v3 = ((v3 << 16) & _MASK | v3 >> 48) ^ v2
        v0 = (v0 + v3) & _MASK
        v3 = ((v3 << 21) & _MASK | v3 >> 43) ^ v0
        v2 = (v2 + v1) & _MASK
        v1 = ((v1 << 17) & _MASK | v1 >> 47) ^ v2
        v2 = (v2 << 32) & _MASK | v2 >> 32
    return v0, v1, v2, v3
