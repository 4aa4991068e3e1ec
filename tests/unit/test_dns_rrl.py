"""Rate limits: the bucket, slip, classes, prefixes, and how much of it is kept."""

import random

import pytest

from dns_frontend.limits import RRL_BUCKETS_MAX
from dns_frontend.responder.rrl import AnswerClass, RateLimiter, Rule, Verdict

S = 1_000_000_000
CLIENT = (4, 0xC0000201)
SEND, SLIP, DROP = Verdict.SEND, Verdict.SLIP, Verdict.DROP


def judge(limiter, client=CLIENT, *, now=0, octets=100, kind=AnswerClass.ANSWER, zone=b""):
    return limiter.judge(client, kind, zone, octets, now)


def test_a_bucket_holds_a_window_and_fills_at_its_rate():
    limiter = RateLimiter(Rule(rate=10, slip=2, window_s=1.0))
    assert [judge(limiter) for _ in range(10)] == [SEND] * 10
    assert [judge(limiter) for _ in range(4)] == [DROP, SLIP, DROP, SLIP]
    assert judge(limiter, now=S // 10) is SEND
    assert judge(limiter, now=S // 10) is DROP
    assert [judge(limiter, now=5 * S) for _ in range(11)] == [SEND] * 10 + [SLIP]


@pytest.mark.parametrize(("slip", "expected"), [(0, 0), (1, 60), (2, 30), (3, 20)])
def test_slip(slip, expected):
    limiter = RateLimiter(Rule(rate=1, slip=slip))
    assert judge(limiter) is SEND
    assert [judge(limiter) for _ in range(60)].count(SLIP) == expected


@pytest.mark.parametrize(("octets", "answers"), [(12, 100), (255, 100), (256, 50), (511, 50), (1232, 20)])
def test_large_answers_take_more(octets, answers):
    limiter = RateLimiter(Rule(rate=100))
    assert [judge(limiter, octets=octets) for _ in range(200)].count(SEND) == answers


def test_an_answer_that_is_more_than_a_bucket_holds_empties_it():
    limiter = RateLimiter(Rule(rate=2))
    assert judge(limiter, octets=1232) is SEND
    assert judge(limiter, octets=1232, now=S // 2) is not SEND
    assert judge(limiter, octets=1232, now=S) is SEND


def test_over_time_no_more_than_the_rate_and_a_window():
    rng = random.Random(3)
    limiter = RateLimiter(Rule(rate=50))
    now, sent = 0, 0
    while now < 20 * S:
        sent += judge(limiter, now=now) is SEND
        now += rng.randrange(2_000_000)
    assert 20 * 50 <= sent <= 21 * 50


@pytest.mark.parametrize(
    ("other", "same"),
    [((4, 0xC00002FF), True), ((4, 0xC0000301), False), ((6, 0xC0000201), False)],
)
def test_one_network_has_one_bucket(other, same):
    limiter = RateLimiter(Rule(rate=1))
    assert judge(limiter) is SEND
    assert (judge(limiter, other) is not SEND) == same


def test_ipv6_networks_are_56_bits():
    limiter = RateLimiter(Rule(rate=1))
    assert judge(limiter, (6, 0x20010DB8_00000100 << 64)) is SEND
    assert judge(limiter, (6, 0x20010DB8_000001FF << 64 | 7)) is not SEND
    assert judge(limiter, (6, 0x20010DB8_00000200 << 64)) is SEND


def test_classes_and_zones_have_their_own():
    limiter = RateLimiter(Rule(rate=1))
    for kind in AnswerClass:
        assert judge(limiter, kind=kind) is SEND
        assert judge(limiter, kind=kind) is not SEND
    assert judge(limiter, kind=AnswerClass.NXDOMAIN, zone=b"\x01a\x00") is SEND


def test_memory_is_bounded_and_a_flood_of_networks_forgets_the_idle_first():
    limiter = RateLimiter(Rule(rate=1))
    now = 10 * S
    for _ in range(100):
        judge(limiter, CLIENT, now=now)
    for index in range(3 * RRL_BUCKETS_MAX):
        judge(limiter, (4, index << 8), now=now + index)
        assert len(limiter) <= RRL_BUCKETS_MAX
    # Seconds later every bucket is full: those go at once, and room is left.
    judge(limiter, (4, 0xF0000000), now=now + 60 * S)
    for index in range(RRL_BUCKETS_MAX):
        judge(limiter, (4, index << 8), now=now + 60 * S)
    assert len(limiter) <= RRL_BUCKETS_MAX
