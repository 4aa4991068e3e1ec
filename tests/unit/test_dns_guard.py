"""The responder behind its guard: cookies, limits, NSID, keepalive, extended errors, octet by octet."""

import struct

import dns.message
import dns.rcode
import pytest

from bns.model import HealthStatus
from dns_frontend.hardening import Hardened
from dns_frontend.metrics import Counters, Transport
from dns_frontend.responder.cookies import Cookies
from dns_frontend.responder.edns import extended_error
from dns_frontend.responder.guard import Clock, Guard, Hardening
from dns_frontend.responder.respond import Responder
from dns_frontend.responder.rrl import Rule
from dns_frontend.table.serving import Serving
from tests.support.dns import catalog, endpoints, networks, source, view_of

UDP, TCP = Transport.UDP, Transport.TCP
WWW = b"\x03www\x0bshakespeare\x07example\x00"
NOPE = b"\x04nope\x0bshakespeare\x07example\x00"
HUGE = b"\x04huge\x0bshakespeare\x07example\x00"
ELSEWHERE = b"\x09elsewhere\x04test\x00"
CLIENT = bytes(range(8))
NOW_S = 1_700_000_000
PEER = source("10.1.2.3")


class Frozen:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.s = float(NOW_S)

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.s, lambda: int(self.s * 1_000_000_000))


def guarded(time=None, *, members=None, **chosen) -> Responder:
    counters = Counters()
    guard = Guard(counters, Hardening(**chosen), (time or Frozen()).clock)
    guard.cookies = Cookies((b"k" * 16,))
    made = Responder(counters, guard=guard)
    made.serving = Serving().advance(catalog(), {"gfe": view_of(members=members)})
    return made


def opt(*options: tuple[int, bytes], payload=1232, version=0) -> bytes:
    data = b"".join(struct.pack("!HH", code, len(value)) + value for code, value in options)
    return b"\x00" + struct.pack("!HHIH", 41, payload, version << 16, len(data)) + data


def query(name=WWW, rtype=1, record=b"", *, questions=1) -> bytes:
    head = struct.pack("!HHHHHH", 7, 0x0100, questions, 0, 0, 1 if record else 0)
    return head + (name + struct.pack("!HH", rtype, 1) if questions else b"") + record


def ask(responder, packet, transport=UDP, peer=PEER) -> dns.message.Message | None:
    answer = responder.respond(packet, peer, transport)
    assert responder._counters.bugs == 0
    return None if answer is None else dns.message.from_wire(answer)


def options_of(message) -> list[tuple[int, bytes]]:
    return [(int(option.otype), option.to_wire()) for option in message.options]


def cookie_of(message) -> bytes:
    return next(data for code, data in options_of(message) if code == 10)


def test_a_client_gets_a_cookie_and_is_known_by_it():
    responder = guarded()
    first = ask(responder, query(record=opt((10, CLIENT))))
    assert first.answer
    cookie = cookie_of(first)
    assert (cookie[:8], len(cookie)) == (CLIENT, 24)
    assert cookie_of(ask(responder, query(record=opt((10, cookie))))) == cookie
    assert cookie_of(ask(responder, query(record=opt((10, cookie))), peer=source("10.1.2.4"))) != cookie


def test_no_cookie_comes_to_who_sends_none_or_where_they_are_off():
    assert options_of(ask(guarded(), query(record=opt()))) == []
    off = guarded()
    off._guard.cookies = None
    assert options_of(ask(off, query(record=opt((10, CLIENT))))) == []
    assert options_of(ask(off, query(record=opt((10, b"short"))))) == []


@pytest.mark.parametrize("size", [0, 7, 9, 15, 41, 200])
def test_a_cookie_of_a_wrong_length_is_formerr(size):
    answer = ask(guarded(), query(record=opt((10, bytes(size)))))
    assert answer.rcode() == dns.rcode.FORMERR
    assert options_of(answer) == []


def test_of_two_cookies_the_first_counts():
    answer = ask(guarded(), query(record=opt((10, CLIENT), (10, b"x"))))
    assert cookie_of(answer)[:8] == CLIENT


@pytest.mark.parametrize("shown", [CLIENT, CLIENT + bytes(16), CLIENT + bytes(8)])
def test_badcookie_where_they_are_required(shown):
    responder = guarded(cookies_required=True)
    answer = ask(responder, query(record=opt((10, shown))))
    assert answer.rcode() == dns.rcode.BADCOOKIE
    assert not answer.answer
    assert ask(responder, query(record=opt((10, cookie_of(answer))))).answer, "with that cookie it goes on"
    assert ask(responder, query(record=opt((10, shown))), TCP).answer, "TCP proves the address by itself"
    assert ask(responder, query(record=opt())).answer, "old clients are served"


@pytest.mark.parametrize(
    ("shown", "rcode"),
    [(CLIENT, dns.rcode.NOERROR), (CLIENT + bytes(16), dns.rcode.BADCOOKIE), (b"bad", dns.rcode.FORMERR)],
)
def test_a_cookie_may_be_asked_for_alone(shown, rcode):
    answer = guarded().respond(query(record=opt((10, shown)), questions=0), PEER, UDP)
    assert answer[4:6] == b"\x00\x00"
    message = dns.message.from_wire(answer)
    assert message.rcode() == rcode
    assert not message.question
    if rcode != dns.rcode.FORMERR:
        assert cookie_of(message)[:8] == CLIENT


def test_an_unknown_version_says_nothing_more():
    answer = ask(guarded(nsid=b"fra-1"), query(record=opt((10, CLIENT), (3, b""), version=1)))
    assert answer.rcode() == dns.rcode.BADVERS
    assert options_of(answer) == []


def test_nsid_comes_if_asked_and_set():
    assert options_of(ask(guarded(nsid=b"fra-1"), query(record=opt((3, b""))))) == [(3, b"fra-1")]
    assert options_of(ask(guarded(nsid=b"fra-1"), query(record=opt()))) == []
    assert options_of(ask(guarded(), query(record=opt((3, b""))))) == []


def test_keepalive_is_of_tcp():
    packet = query(record=opt((11, b"")))
    assert options_of(ask(guarded(), packet, TCP)) == [(11, b"\x00\x64")]
    assert options_of(ask(guarded(), packet)) == []
    assert options_of(ask(guarded(), query(), TCP)) == []


def test_the_order_of_options():
    ecs = struct.pack("!HBB", 1, 24, 0) + b"\x0a\x01\x02"
    responder = guarded(nsid=b"n", members=endpoints({"us-east1": 2}, health=HealthStatus.UNHEALTHY))
    responder._guard.stale = extended_error(3, "old")
    asked = opt((11, b""), (3, b""), (10, CLIENT), (8, ecs))
    found = options_of(ask(responder, query(record=asked), TCP))
    assert [code for code, _ in found] == [8, 10, 3, 11, 15, 15]
    assert [data for code, data in found if code == 15] == [b"\x00\x03old", b"\x00\x00no endpoint is healthy"]


def test_errors_are_told_of_planned_answers_only():
    responder = guarded()
    responder._guard.stale = extended_error(3, "old")
    assert options_of(ask(responder, query(record=opt()))) == [(15, b"\x00\x03old")]
    assert options_of(ask(responder, query(NOPE, record=opt()))) == []
    assert options_of(ask(responder, query(HUGE, 16, record=opt()))) == []
    assert ask(responder, query()).edns == -1


def test_answers_are_called_stale_after_a_time():
    hardened = Hardened(Hardening(stale_after_s=60), None, Counters())
    hardened.mark(60.0, NOW_S)
    assert hardened.guard.stale == b""
    hardened.mark(61.0, NOW_S)
    assert hardened.guard.stale == extended_error(3, "no control plane since 2023-11-14T22:12:19Z")
    said = hardened.guard.stale
    hardened.mark(75.0, NOW_S + 14)
    assert hardened.guard.stale is said, "the same octets as long as it lasts"
    hardened.mark(0.0, NOW_S + 15)
    assert hardened.guard.stale == b""


def flood(responder, packet, count, **more):
    return [responder.respond(packet, more.get("peer", PEER), more.get("transport", UDP)) for _ in range(count)]


def test_beyond_the_limit_half_is_dropped_and_half_told_to_come_over_tcp():
    responder = guarded(rule=Rule(10, 2))
    answers = flood(responder, query(record=opt((10, CLIENT))), 30)
    assert all(answers[:10])
    assert [answer is None for answer in answers[10:]] == [True, False] * 10
    slipped = dns.message.from_wire(answers[11])
    assert slipped.flags & dns.flags.TC
    assert slipped.rcode() == dns.rcode.NOERROR
    assert not slipped.answer
    assert cookie_of(slipped), "and with this it may come back over UDP"
    assert len(answers[11]) == len(query(record=opt((10, cookie_of(slipped)))))
    counters = responder._counters
    assert counters.held_back == {("answer", "dropped"): 10, ("answer", "slipped"): 10}
    assert sum(counters.demand.values()) == 10, "what was not answered is no demand"


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (query(), "answer"),
        (query(rtype=99), "nodata"),
        (query(NOPE), "nxdomain"),
        (query(ELSEWHERE), "error"),
        (query(questions=0), "error"),
        (query(b"\x01x\x03sub" + WWW[4:]), "referral"),
    ],
)
def test_classes(packet, kind):
    responder = guarded(rule=Rule(1, 0))
    first, second = flood(responder, packet, 2)
    assert first is not None
    assert second is None
    assert responder._counters.held_back == {(kind, "dropped"): 1}


def test_errors_slip_as_they_are():
    answers = flood(guarded(rule=Rule(1, 2)), query(ELSEWHERE), 5)
    assert [answer is None for answer in answers] == [False, True, False, True, False]
    assert answers[0] == answers[2]


def test_who_is_not_limited():
    responder = guarded(rule=Rule(1, 0), exempt=networks("192.0.2.0/24"))
    cookie = cookie_of(ask(responder, query(record=opt((10, CLIENT)))))
    assert ask(responder, query(record=opt((10, CLIENT)))) is None
    assert all(flood(responder, query(record=opt((10, cookie))), 20)), "who shows a good cookie"
    assert all(flood(responder, query(), 20, transport=TCP)), "TCP"
    assert all(flood(responder, query(), 20, peer=source("192.0.2.9"))), "whom the operator exempts"
    assert all(flood(guarded(rule=Rule(0)), query(), 20)), "no limit"


@pytest.mark.parametrize(
    "packet",
    [
        query(),
        query(record=opt((10, CLIENT))),
        query(NOPE),
        query(NOPE, record=opt()),
        query(HUGE, 16, record=opt()),
        query(HUGE, 16),
        query(b"\x03big" + WWW[4:], 16),
        query(b"\x03big" + WWW[4:], 16, record=opt()),
        query(b"\x00", 255),
        query(b"\x00" * 1, 6, record=opt()),
        query(WWW[4:], 6),
        query(WWW[4:], 2, record=opt()),
        query(questions=0),
    ],
)
def test_a_flood_in_anothers_name_brings_it_less_than_was_spent(packet):
    """20 times the limit for 10 s from all over one network: fewer octets go out than came in."""
    time = Frozen()
    responder = guarded(time, rule=Rule(50, 2))
    octets_in = octets_out = 0
    for index in range(10 * 20 * 50):
        time.s += 1 / (20 * 50)
        answer = responder.respond(packet, source(f"10.1.2.{index % 256}"), UDP)
        octets_in += len(packet)
        octets_out += len(answer or b"")
    assert octets_out <= octets_in
    assert ask(responder, packet, peer=source("10.1.3.1")) is not None, "its neighbours are answered"
