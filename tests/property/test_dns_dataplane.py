"""The data plane answers what the reference answers, octet by octet, or leaves it to the reference.

GSLB_DIFFERENTIAL is the number of messages (`make test-dns-dataplane` sends a million).
"""

import os
import random

import pytest

from dns_frontend.metrics import Counters, Transport
from dns_frontend.native import BadTableError, NativeTable, NoDataPlaneError, load_library
from dns_frontend.responder.guard import Clock
from dns_frontend.responder.respond import Responder
from dns_frontend.table.compile import compiled
from dns_frontend.table.serving import Serving
from tests.support import dns_worlds as worlds

MESSAGES = int(os.environ.get("GSLB_DIFFERENTIAL", "30000"))
PER_STATE = 300
STATES_PER_WORLD = 4

try:
    LIBRARY = load_library()
except NoDataPlaneError:
    pytest.skip("the data plane is not built here", allow_module_level=True)


class Pair:
    """Both responders with the same to serve."""

    def __init__(self, default_locality: str, rng: random.Random | None = None) -> None:
        """With `rng`: behind a guard."""
        self.default_locality = default_locality
        self.wall_s, self.monotonic_ns = 1_800_000_000, 0
        clock = Clock(lambda: float(self.wall_s), lambda: self.monotonic_ns)
        self.guard = worlds.guard(rng, clock) if rng is not None else None
        self.responder = Responder(Counters(), default_locality, guard=self.guard)
        self.compiled = None
        self.table = None
        self.patches = self.limited = 0

    def advance(self, catalog, views) -> None:
        serving = self.responder.serving.advance(catalog, {view.name: view for view in views})
        guarding = self.guard.guarding(bytes(16)) if self.guard is not None else None
        made = compiled(serving, self.default_locality, self.compiled, guarding)
        self.table = NativeTable(LIBRARY, made.octets, self.table if made.is_patch else None)
        self.patches += made.is_patch
        self.compiled, self.responder.serving = made, serving

    def check(self, packet, source, transport) -> bool:
        """Whether the data plane answered by itself."""
        found = self.table.answer(packet, source, transport, (self.wall_s, self.monotonic_ns))
        if found is None:
            return False
        answer, facts = found
        counters = self.responder._counters = Counters()
        if self.guard is not None:
            self.guard._counters = counters
        expected = self.responder.respond(packet, source, transport)
        assert counters.bugs == 0
        assert answer == expected, f"{packet.hex()} from {source} by {transport}"
        self.limited += bool(counters.held_back)
        if answer is None or counters.held_back:
            return True
        assert counters.answers == {(transport, facts.rcode): 1}
        assert counters.truncated == facts.truncated
        layout = self.compiled.layout
        names = {number: name for name, number in layout.localities.items()}
        datacenters = {number: name for name, number in layout.datacenters.items()}
        slots = {slot: name for name, slot in layout.slots.items()}
        if facts.steered:
            assert counters.demand == {(slots[facts.slot], names[facts.locality]): 1}
            where = "" if facts.datacenter is None else datacenters[facts.datacenter]
            assert counters.destinations == {(names[facts.locality], where): 1}
        else:
            assert not counters.demand
        return True


def test_same_octets_as_the_reference():
    seed = int(os.environ.get("GSLB_SEED", "20261122"))
    asked = own = patches = 0
    number = 0
    while asked < MESSAGES:
        rng = random.Random(seed + number)
        number += 1
        pair = Pair(rng.choice(["", "eu", "nowhere"]))
        catalog = worlds.world(rng)
        views = [worlds.steered(rng, f"s{index}") for index in range(rng.randint(0, 5))]
        for version in range(2, 2 + STATES_PER_WORLD):
            pair.advance(catalog, views)
            for _ in range(PER_STATE):
                transport = Transport.UDP if rng.random() < 0.8 else Transport.TCP
                own += pair.check(worlds.message(rng), worlds.source(rng), transport)
                asked += 1
            views = worlds.changed(rng, views, version)
            if rng.random() < 0.2:
                catalog = worlds.world(rng)
        patches += pair.patches
    assert own > 0.8 * asked, f"{own} of {asked}: too much is left to the reference"
    assert patches > number
    print(f"{asked} messages, {own} answered by the data plane, {number} worlds, {patches} patches")


def test_same_octets_behind_a_guard():
    """Cookies good and bad, the rate limit in the same state, NSID and extended errors."""
    seed = int(os.environ.get("GSLB_SEED", "20261122"))
    asked = own = limited = 0
    number = 0
    while asked < MESSAGES // 3:
        rng = random.Random(seed + 10_000 + number)
        number += 1
        pair = Pair(rng.choice(["", "eu"]), rng)
        catalog = worlds.world(rng)
        views = [worlds.steered(rng, f"s{index}") for index in range(rng.randint(1, 5))]
        askers = [worlds.source(rng) for _ in range(6)]
        for version in range(2, 2 + STATES_PER_WORLD):
            pair.advance(catalog, views)
            for _ in range(PER_STATE):
                asker = rng.choice(askers)
                transport = Transport.UDP if rng.random() < 0.9 else Transport.TCP
                packet = worlds.message(rng)
                if rng.random() < 0.5:
                    packet = worlds.with_cookie(rng, pair.guard, asker, pair.wall_s)
                own += pair.check(packet, asker, transport)
                asked += 1
                pair.monotonic_ns += rng.choice([0, 1_000_000, 50_000_000])
            views = worlds.changed(rng, views, version)
        limited += pair.limited
    assert own > 0.8 * asked, f"{own} of {asked}: too much is left to the reference"
    assert limited > asked / 100
    print(f"{asked} messages behind a guard, {own} answered by the data plane, {limited} limited")


def octets(seed: int) -> bytes:
    rng = random.Random(seed)
    views = {view.name: view for view in (worlds.steered(rng, f"s{index}") for index in range(3))}
    return compiled(Serving().advance(worlds.world(rng), views), "").octets


def test_a_table_that_is_cut_short_is_refused():
    whole = octets(1)
    NativeTable(LIBRARY, whole)
    for length in [*range(0, len(whole) - 1, max(1, len(whole) // 300)), len(whole) - 1]:
        with pytest.raises(BadTableError):
            NativeTable(LIBRARY, whole[:length])


def test_damaged_tables_are_refused_or_harmless():
    rng = random.Random(7)
    whole = octets(7)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            table = NativeTable(LIBRARY, bytes(damaged))
        except BadTableError:
            continue
        for _ in range(20):
            table.answer(worlds.message(rng), worlds.source(rng), Transport.UDP)
