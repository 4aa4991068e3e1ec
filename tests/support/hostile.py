"""Messages that are meant to be dear to answer, and a guard that does all it can for each answer."""

import struct

from dns_frontend.metrics import Counters
from dns_frontend.responder.cookies import Cookies
from dns_frontend.responder.edns import extended_error
from dns_frontend.responder.guard import Clock, Guard, Guarding, Hardening
from dns_frontend.responder.rrl import Rule
from dns_frontend.zone.name import from_text

TAIL = "shakespeare.example"


def guarded() -> Guarding:
    """Four secrets, a rate limit, NSID, answers that are stale."""
    made = Guard(Counters(), Hardening(rule=Rule(50, 2), nsid=b"n" * 64), Clock(lambda: 1.8e9, lambda: 0))
    made.cookies = Cookies(tuple(bytes([number]) * 16 for number in range(4)))
    made.stale = extended_error(3, "no control plane since then")
    return made.guarding(bytes(16))


def question(name: bytes, rtype: int = 1, options: bytes = b"", records: bytes = b"", count: int = 0) -> bytes:
    """A query with EDNS; `records`: `count` more before OPT, in the additional section."""
    head = struct.pack("!HHHHHH", 0xFFFF, 0x0100, 1, 0, 0, 1 + count)
    opt = b"\x00" + struct.pack("!HHIH", 41, 65535, 0x8000, len(options)) + options
    return head + name + struct.pack("!HH", rtype, 1) + records + opt


def option(code: int, data: bytes) -> bytes:
    return struct.pack("!HH", code, len(data)) + data


def hostile() -> list[bytes]:
    """Long and deep names, many options, many records, cookies that no secret proves, all at once."""
    suffix = from_text(TAIL)
    deep = b"\x01a" * ((255 - len(suffix)) // 2) + suffix
    long = b"\x3f" + b"z" * 63 + b"\x3f" + b"y" * 63 + b"\x3f" + b"x" * 63 + b"\x20" + b"w" * 32 + suffix
    fresh = b"\x01\x00\x00\x00" + struct.pack("!I", 1_800_000_000) + b"forgery!"
    cookie = option(10, b"clientid" + fresh)
    subnet = option(8, struct.pack("!HBB", 2, 128, 0) + bytes(range(32, 48)))
    everything = subnet + cookie + option(3, b"") + option(65001, b"") * 29
    records = (deep[:253] + b"\x00\x00" + struct.pack("!HHIH", 1, 1, 0, 0)) * 3
    made = []
    for label in (b"", b"\x05split", b"\x02mx", b"\x03ptr", b"\x03big", b"\x04huge", b"\x04nope", b"\x01x\x04wild"):
        for rtype in (1, 28, 12, 15, 16, 65, 255):
            name = label + suffix
            made += [question(name, rtype, everything), question(name, rtype, everything, records, 3)]
    for name in (deep, long, deep[2:], b"\x01b" + deep[2:], b"\x01A" * 127 + b"\x00", b"\x00"):
        for rtype in (1, 6, 43, 255):
            made += [question(name, rtype, everything), question(name, rtype, everything, records, 3)]
    heaps = (option(65001, b"") * 32, option(65001, b"") * 33, cookie * 32, option(65001, bytes(60_000)))
    made += [question(suffix, 1, options) for options in heaps]
    made.append(bytes(12))
    made.append(b"\xff" * 12)
    made.append(struct.pack("!HHHHHH", 7, 0, 1, 0, 0, 8) + b"\x3f" + b"a" * 60_000)
    made.append(struct.pack("!HHHHHH", 7, 0, 1, 0, 0, 0) + b"\xc0\x0c\x00\x01\x00\x01")
    return made
