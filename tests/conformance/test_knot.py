"""Knot DNS serves the zones of tests/data/zones too: both answer alike, section by section, for every name and type.

What may differ, and why:
- a CNAME into another zone of ours: Knot ends at the zone's border, we go on where we are authoritative (RFC 1034 section
  4.3.2, step 3a: "go back to step 1");
- additional records of SVCB and HTTPS: we add those that RFC 9460 section 4.1 asks for, Knot some of them;
- ANY (RFC 8482) and the codes of meta queries: tests/unit has them.
"""

import shutil
import socket

import dns.message
import pytest

from dns_frontend.metrics import Transport
from dns_frontend.responder.respond import Responder
from dns_frontend.zone.name import from_text, is_under
from tests.support.corpus import (
    Answer,
    Question,
    ask_wire,
    comparable,
    corpus_responder,
    own_questions,
    questions,
    zone_files,
    zones,
)
from tests.support.dns import ANYBODY
from tests.support.knot import exchange, knot

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif(shutil.which("knotd", path="/usr/sbin:/usr/bin") is None, reason="knotd is not installed"),
    pytest.mark.timeout(600),
]

SERVICE_TYPES = {"HTTPS", "SVCB"}


@pytest.fixture(scope="module")
def responder() -> Responder:
    return corpus_responder()


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    with knot(tmp_path_factory.mktemp("knot"), zone_files()) as port:
        yield port


def leaves_its_zone(question: Question, theirs: Answer) -> bool:
    """Whether the last name of Knot's chain is in another of our zones."""
    name = question.name.lower()
    targets = {line.split()[0]: line.split()[-1] for line in theirs.answer if " CNAME " in line}
    for _ in range(len(targets)):
        name = targets.get(name, name)
    return name != question.name.lower() and zone_of(name) != zone_of(question.name) and zone_of(name) is not None


def zone_of(name: str) -> bytes | None:
    wire = from_text(name).lower()
    return max((origin for data in zones().values() if is_under(wire, origin := data.origin)), key=len, default=None)


def explained(question: Question, ours: Answer, theirs: Answer) -> bool:
    if leaves_its_zone(question, theirs):
        return theirs.answer <= ours.answer and ours.flags == theirs.flags
    if question.rtype in SERVICE_TYPES:
        return ours._replace(additional=theirs.additional) == theirs and ours.additional >= theirs.additional
    return False


def compared(responder: Responder, port: int, kind: socket.SocketKind, payload: int, asked: list[Question]) -> None:
    differences = []
    transport = Transport.UDP if kind is socket.SOCK_DGRAM else Transport.TCP
    for question in asked:
        wire = ask_wire(question, payload)
        ours = responder.respond(wire, ANYBODY, transport)
        assert ours is not None
        mine, its = (
            comparable(dns.message.from_wire(ours)),
            comparable(dns.message.from_wire(exchange(port, wire, kind))),
        )
        if mine != its and not explained(question, mine, its):
            differences.append(f"{question}\n  we   {mine}\n  knot {its}")
    assert not differences, f"{len(differences)} of {len(asked)} answers differ, such as\n" + "\n".join(differences[:5])


def test_every_name_and_type_over_udp(responder, oracle):
    asked = questions()
    assert len(asked) > 7000
    compared(responder, oracle, socket.SOCK_DGRAM, 1232, asked)


def test_every_record_over_tcp(responder, oracle):
    compared(responder, oracle, socket.SOCK_STREAM, 1232, own_questions())


def test_every_record_in_the_smallest_datagram(responder, oracle):
    compared(responder, oracle, socket.SOCK_DGRAM, 512, own_questions())
