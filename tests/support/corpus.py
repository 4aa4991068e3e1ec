"""The zones of tests/data/zones, the questions that they give rise to, and answers in a form that can be compared.

    python -m tests.support.corpus     writes tests/golden/dns_answers.txt anew: what we answer, as Knot does

What Knot answers is compared in tests/conformance; the golden file keeps it for machines without Knot.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from dns_frontend.metrics import Counters, Transport
from dns_frontend.responder.respond import Responder
from dns_frontend.table.build import build_table
from dns_frontend.table.serving import Serving
from dns_frontend.zone.name import labels_of, to_text
from dns_frontend.zone.records import ZoneData
from dns_frontend.zonefiles import load_zone
from tests.support.dns import ANYBODY

ZONES = Path(__file__).parents[1] / "data" / "zones"
# Asked at every name, whether it has them or not.
ALWAYS = ("A", "AAAA", "NS", "SOA", "CNAME", "DNAME", "MX", "TXT", "SRV", "DS", "HTTPS", "SVCB", "CAA", "TYPE65280")
# Asked at names that are made up.
DERIVED = ("A", "TXT", "CNAME", "DS", "NS", "HTTPS")


class Question(NamedTuple):
    """One question, as it is sent."""

    name: str
    rtype: str


@cache
def zones() -> dict[str, ZoneData]:
    """By origin."""
    return {origin: load_zone(origin, path).data for origin, path in zone_files().items()}


def zone_files() -> dict[str, Path]:
    """By origin."""
    return {path.name.removesuffix(".zone"): path for path in sorted(ZONES.glob("*.zone"))}


def questions() -> list[Question]:
    """Every name and type of every zone, names that lack a type, and names around those that are there."""
    asked: dict[Question, None] = {}
    for data in zones().values():
        for name in sorted({*data.nodes, *data.empty}):
            text = to_text(name)
            own = [dns.rdatatype.to_text(dns.rdatatype.RdataType(rtype)) for rtype in data.nodes.get(name, {})]
            asked |= dict.fromkeys(Question(text, rtype) for rtype in (*own, *ALWAYS))
            asked |= dict.fromkeys(Question(around, rtype) for around in _around(name, data) for rtype in DERIVED)
    return list(asked)


def _around(name: bytes, data: ZoneData) -> Iterator[str]:
    """A child, a grandchild, a sibling, the name in another case, and a wildcard's match."""
    for made in (b"\x05child" + name, b"\x05under\x05child" + name, b"\x01*" + name):
        if len(made) <= 255:
            yield to_text(made)
    if name != data.origin:
        first, *rest = labels_of(name)
        above = b"".join(bytes((len(label),)) + label for label in rest) + b"\x00"
        for label in (first[:60] + b"-zz", b"\x00", b"match"):
            yield to_text(bytes((len(label),)) + label + above)
    yield to_text(name).swapcase()


def own_questions() -> list[Question]:
    """Names with the types that they have."""
    return [
        Question(to_text(name), dns.rdatatype.to_text(dns.rdatatype.RdataType(rtype)))
        for data in zones().values()
        for name in sorted(data.nodes)
        for rtype in data.nodes[name]
    ]


def corpus_responder() -> Responder:
    """One that serves the corpus, without any socket."""
    made = Responder(Counters())
    made.serving = Serving(ready=True, table=build_table(list(zones().values()), {}))
    return made


class Answer(NamedTuple):
    """What two servers have to agree on."""

    rcode: str
    flags: str
    answer: frozenset[str]
    authority: frozenset[str]
    additional: frozenset[str]


def comparable(message: dns.message.Message) -> Answer:
    """Sections as sets of records; owners and the names in rdata in lower case, for servers spell them differently."""
    flags = " ".join(
        name
        for name, flag in (("aa", dns.flags.AA), ("tc", dns.flags.TC), ("ra", dns.flags.RA))
        if message.flags & flag
    )
    return Answer(
        dns.rcode.to_text(message.rcode()),
        flags,
        _records(message.answer),
        _records(message.authority),
        _records(message.additional),
    )


def _records(section: list) -> frozenset[str]:
    return frozenset(
        f"{rrset.name.to_text().lower()} {rrset.ttl} {dns.rdatatype.to_text(rrset.rdtype)} {_canonical(rdata)}"
        for rrset in section
        for rdata in rrset
    )


def _canonical(rdata) -> str:
    """Names in lower case (RFC 4034 section 6.2), as text where dnspython has one."""
    return rdata.to_wire(origin=dns.name.root, canonicalize=True).hex(" ", -4) if _opaque(rdata) else str(rdata).lower()


def _opaque(rdata) -> bool:
    return rdata.rdtype in {dns.rdatatype.TXT, dns.rdatatype.HINFO, dns.rdatatype.SVCB, dns.rdatatype.HTTPS}


def ask_wire(question: Question, payload: int = 1232) -> bytes:
    """The query, EDNS with it."""
    query = dns.message.make_query(question.name, question.rtype, use_edns=0, payload=payload, id=4711)
    query.flags = dns.flags.from_text("")
    return query.to_wire()


GOLDEN = Path(__file__).parents[1] / "golden" / "dns_answers.txt"


def golden_text() -> str:
    """Our answers to the questions for what is there, and for what is not but might be thought to be."""
    responder = corpus_responder()
    asked = own_questions()
    for data in zones().values():
        for name in sorted({*data.nodes, *data.empty}):
            asked += [Question(to_text(name), "A"), Question(to_text(name), "DS")]
            asked += [Question(around, "A") for around in list(_around(name, data))[:4]]
    parts = []
    for question in dict.fromkeys(asked):
        packet = responder.respond(ask_wire(question), ANYBODY, Transport.UDP)
        assert packet is not None
        answer = comparable(dns.message.from_wire(packet))
        parts.append(f"{question.name} {question.rtype}: {answer.rcode} {answer.flags}")
        for mark, section in (("=", answer.answer), ("^", answer.authority), ("+", answer.additional)):
            parts += [f"  {mark} {record}" for record in sorted(section)]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(golden_text())
