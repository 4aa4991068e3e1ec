"""An answer from the cache is the answer that the responder would give, and it is counted as such."""

import ipaddress
import random
import socket

from dns_frontend import limits
from dns_frontend.metrics import Counters, Transport
from dns_frontend.responder.cache import AnswerCache
from dns_frontend.responder.cookies import Cookies
from dns_frontend.responder.guard import Clock
from dns_frontend.responder.locate import Source
from dns_frontend.responder.respond import Responder
from dns_frontend.table.serving import Serving
from tests.support import dns_worlds as worlds


def serving(rng: random.Random) -> Serving:
    views = [worlds.steered(rng, f"s{index}") for index in range(4)]
    return Serving().advance(worlds.world(rng), {view.name: view for view in views})


def guarded(rng: random.Random, clock: Clock) -> Responder:
    """Behind a rate limit, half of the time."""
    counters = Counters()
    guard = worlds.guard(rng, clock) if rng.random() < 0.5 else None
    if guard is not None:
        guard._counters = counters
    return Responder(counters, guard=guard)


def test_same_answers_and_same_counts():
    rng = random.Random(11)
    hosts = ["10.1.2.3", "127.0.0.1", "10.7.0.9"]
    for world in range(8):
        clock = Clock(lambda: 1.8e9, lambda: 0)
        cached, plain = (guarded(random.Random(world), clock) for _ in range(2))
        cache = AnswerCache(cached)
        messages = [worlds.message(rng) for _ in range(60)]
        if cached._guard is not None:
            # Cookies for any of the hosts: what one of them proves, another one does not.
            askers = [Source(4, int(ipaddress.ip_address(rng.choice(hosts)))) for _ in range(30)]
            messages += [worlds.with_cookie(rng, cached._guard, asker, int(1.8e9)) for asker in askers]
        now_s = 0.0
        for step in range(3000):
            if step % 1000 == 0:
                cached.serving = plain.serving = serving(rng)
            now_s += rng.choice([0.0, 0.001])
            cache.tick(now_s)
            packet, host = rng.choice(messages), rng.choice(hosts)
            packet = rng.randbytes(2) + packet[2:]
            expected = plain.respond(packet, Source(4, int(ipaddress.ip_address(host))), Transport.UDP)
            assert cache.respond(packet, host, socket.AF_INET) == expected
        assert cached._counters.answers == plain._counters.answers
        assert cached._counters.held_back == plain._counters.held_back
        assert cached._counters.demand == plain._counters.demand
        assert cached._counters.destinations == plain._counters.destinations


def test_an_answer_with_a_cookie_is_not_kept_beyond_its_secrets():
    rng = random.Random(3)
    guard = worlds.guard(rng, Clock(lambda: 1.8e9, lambda: 0))
    guard.cookies = Cookies((bytes(16),))
    responder = Responder(Counters(), guard=guard)
    responder.serving = serving(rng)
    cache, asker = AnswerCache(responder), Source(4, int(ipaddress.ip_address("127.0.0.1")))
    query = worlds.with_cookie(rng, guard, asker, int(1.8e9))
    cache.tick(0.0)
    before = [cache.respond(query, "127.0.0.1", socket.AF_INET) for _ in range(3)]
    guard.cookies = Cookies((bytes(15) + b"x",))
    cache.tick(0.0)
    after = cache.respond(query, "127.0.0.1", socket.AF_INET)
    assert before == [before[0]] * 3
    assert after not in before
    assert after == responder.respond(query, asker, Transport.UDP)


def test_nothing_is_kept_for_long_nor_without_bound(monkeypatch):
    monkeypatch.setattr("dns_frontend.responder.cache.CACHED_ANSWERS_MAX", 10)
    rng = random.Random(5)
    responder = Responder(Counters())
    responder.serving = serving(rng)
    cache = AnswerCache(responder)
    cache.tick(0.0)
    for _ in range(500):
        cache.respond(worlds.message(rng), "10.1.2.3", socket.AF_INET)
        assert len(cache._entries) <= 10
    assert cache._entries
    cache.tick(limits.CACHED_S)
    assert not cache._entries
