"""A channel to a large datacenter connects to some twenty of its tasks: evenly spread, warmed, and no call is lost."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack

import grpc
import pytest

import gslb.rpc
from bns.model import HealthStatus
from bns.transport import server_options
from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.policy.clients import CLIENTS_MAX, HELD_S, HOLD, LEAVE, LOOK, Clients, question
from gslb.rpc.policy.subset import SIZE
from gslb.rpc.server import Load
from gslb.rpc.server.report import LoadReporter, add_load_report
from tests.support.echo import SERVICE, UNARY, ControlReplica, World, name_of, wait_until

COUNT = 40
CLIENTS = 6


class Fleet:
    """Servers of one process, each with a port of its own, and a control replica that tells of them."""

    def __init__(self, *, say: bool) -> None:
        self.world = World()
        self.replica = ControlReplica(self.world)
        self.servers: dict[str, grpc.Server] = {}
        self.endpoints: dict[str, ServiceEndpoint] = {}
        for i in range(COUNT):
            self._add(f"/bns/us-east1/u/echo/{i}", say=say)
        self.tell()

    def _add(self, task: str, *, say: bool) -> None:
        server = grpc.server(futures.ThreadPoolExecutor(1), options=server_options())
        handler = grpc.unary_unary_rpc_method_handler(lambda request, _context: task.encode() + b" " + request)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Unary": handler}),))
        if say:
            add_load_report(server, LoadReporter(Load()))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.servers[task] = server
        self.endpoints[task] = ServiceEndpoint(task, "127.0.0.1", port, HealthStatus.HEALTHY)

    def tell(self, without: frozenset[str] = frozenset()) -> None:
        said = [endpoint for task, endpoint in self.endpoints.items() if task not in without]
        self.world.set(said, {"us-east1": {"us-east1": 1.0}})

    def channel(self, **options):
        return gslb.rpc.channel(SERVICE, control=self.replica.address, locality="us-east1", **options)

    def close(self) -> None:
        gslb.rpc.close_all()
        for server in self.servers.values():
            server.stop(None)
        self.replica.close()


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    made = Fleet(say=True)
    yield made
    made.close()


def subset_of(channel) -> frozenset[str]:
    return frozenset(channel.explain()["subsets"].get("us-east1", ()))


def dialled(channel) -> frozenset[str]:
    return frozenset(link.endpoint.task for link in channel.core.links() if link._channel is not None)


def stopgaps(channel) -> int:
    """Tasks that are used until better ones are found."""
    place = channel.core.subsets._places.get("us-east1")
    return SIZE if place is None else len(place.stopgap)


def settled(channel) -> bool:
    """Whether it has chosen its tasks, and has connections to no others."""
    return not stopgaps(channel) and dialled(channel) == subset_of(channel)


def test_clients_spread_evenly_over_few_tasks_each_and_lose_no_call(fleet: Fleet) -> None:
    with ExitStack() as stack:
        channels = [stack.enter_context(fleet.channel()) for _ in range(CLIENTS)]
        stubs = [channel.unary_unary(UNARY) for channel in channels]
        for stub in stubs:
            assert stub(b"at once", timeout=10)
        deadline_s = time.monotonic() + 60
        counts: Counter[str] = Counter()
        while True:
            for stub in stubs:
                for _ in range(5):
                    assert stub(b"x", timeout=10)
            counts = Counter(task for channel in channels for task in subset_of(channel))
            spread = max(counts.values()) - min(counts[task] for task in fleet.endpoints)
            # By chance alone it would be five or six.
            if counts.total() == CLIENTS * SIZE and spread <= 3 and not any(stopgaps(channel) for channel in channels):
                break
            assert time.monotonic() < deadline_s, (spread, counts)
        for channel in channels:
            # Others are dialled now and then, to compare, and closed again.
            wait_until(lambda channel=channel: settled(channel), 30)
        counts = Counter(task for channel in channels for task in subset_of(channel))
        assert {len(subset_of(channel)) for channel in channels} == {SIZE}
        assert counts.total() == CLIENTS * SIZE
        for channel, stub in zip(channels, stubs, strict=True):
            before = subset_of(channel)
            used = Counter(f"/bns/{name_of(stub(b'x', timeout=10))}" for _ in range(200))
            # One connection may have moved meanwhile.
            assert set(used) <= before | subset_of(channel)
            assert len(used) > SIZE / 2


def test_tasks_that_go_are_replaced_and_their_places_held_for_a_while(fleet: Fleet) -> None:
    fleet.tell()
    with fleet.channel(idempotent=True) as channel:
        stub = channel.unary_unary(UNARY)
        assert stub(b"x", timeout=10)
        wait_until(lambda: settled(channel), 30)
        before = subset_of(channel)
        gone = frozenset(sorted(before)[:3])
        fleet.tell(without=gone)
        wait_until(lambda: not subset_of(channel) & gone)
        assert len(subset_of(channel)) == SIZE
        assert before - gone < subset_of(channel)
        for _ in range(100):
            assert f"/bns/{name_of(stub(b'x', timeout=10))}" not in gone
        # Back within a minute: everybody comes back to the tasks that he had.
        fleet.tell()
        wait_until(lambda: subset_of(channel) == before, 30)
        assert stub(b"x", timeout=10)


def test_a_small_datacenter_and_affinity_have_no_subset(fleet: Fleet) -> None:
    few = frozenset(sorted(fleet.endpoints)[SIZE:])
    fleet.tell(without=few)
    with fleet.channel() as channel, fleet.channel(affinity="user-id") as keyed:
        wait_until(lambda: len(channel.core.links()) == SIZE)
        assert channel.explain()["subsets"] == {}
        assert channel.unary_unary(UNARY)(b"x", timeout=10)
        # It grows, and has one; it shrinks again, and has none.
        fleet.tell()
        wait_until(lambda: len(subset_of(channel)) == SIZE)
        fleet.tell(without=few)
        wait_until(lambda: subset_of(channel) == frozenset())
        assert channel.unary_unary(UNARY)(b"x", timeout=10)
        fleet.tell()
        wait_until(lambda: len(keyed.core.links()) == COUNT)
        stub = keyed.unary_unary(UNARY)
        names = {name_of(stub(b"x", timeout=10, metadata=(("user-id", str(i)),))) for i in range(400)}
        assert len(names) > 30
        assert keyed.explain()["subsets"] == {}


def test_an_asyncio_channel_does_the_same(fleet: Fleet) -> None:
    fleet.tell()

    async def run() -> tuple[frozenset[str], frozenset[str], set[str]]:
        async with gslb.rpc.aio_channel(SERVICE, control=fleet.replica.address, locality="us-east1") as channel:
            stub = channel.unary_unary(UNARY)
            names = set()
            deadline_s = time.monotonic() + 30
            while not names or not settled(channel):
                names = {name_of(await stub(b"x", timeout=10)) for _ in range(5)}
                assert time.monotonic() < deadline_s, (subset_of(channel), dialled(channel))
                await asyncio.sleep(0.05)
            names = {f"/bns/{name_of(await stub(b'x', timeout=10))}" for _ in range(200)}
            return subset_of(channel), dialled(channel), names

    subset, connected, names = asyncio.run(run())
    assert len(subset) == SIZE
    assert connected == subset
    assert names <= subset


def test_a_large_datacenter_that_dies_is_left_for_another_at_once() -> None:
    doomed = Fleet(say=True)
    try:
        far = "/bns/europe-west1/u/echo/0"
        doomed._add(far, say=True)
        doomed.tell()
        with doomed.channel(idempotent=True) as channel:
            stub = channel.unary_unary(UNARY)
            assert stub(b"x", timeout=10).startswith(b"/bns/us-east1/")
            wait_until(lambda: settled(channel), 30)
            for task, server in doomed.servers.items():
                if task != far:
                    server.stop(None)
            died_s = time.monotonic()
            tried = 0
            while channel.explain()["shares"] != {"europe-west1": 1.0}:
                assert stub(b"x", timeout=10).startswith(far.encode())
                tried += 1
                assert time.monotonic() < died_s + 5
            assert tried < 20
            # The sample that it knew was enough to judge by: the others were left alone.
            assert sum(task["down"] for task in channel.explain()["endpoints"]) <= SIZE
    finally:
        doomed.close()


def test_where_nobody_says_how_many_clients_there_are_some_are_taken_at_random() -> None:
    mute = Fleet(say=False)
    try:
        with mute.channel() as channel:
            stub = channel.unary_unary(UNARY)
            assert stub(b"x", timeout=10)
            before = subset_of(channel)
            assert len(before) == SIZE
            # They are asked once, in vain; those that are not in use are closed again.
            wait_until(lambda: len(dialled(channel)) > SIZE, 10)
            wait_until(lambda: dialled(channel) <= before, 20)
            names = {f"/bns/{name_of(stub(b'x', timeout=10))}" for _ in range(200)}
            assert names <= subset_of(channel) == before
    finally:
        mute.close()


# What a server counts


ONE, TWO = "0" * 16, "f" * 16


def test_a_server_counts_those_that_hold_on_to_it() -> None:
    clients = Clients()
    assert clients.asked(question(LOOK, ONE), 0.0) == 1
    assert clients.asked(question(HOLD, ONE), 0.0) == 1
    assert clients.asked(question(LOOK, TWO), 1.0) == 2
    assert clients.asked(question(HOLD, TWO), 1.0) == 2
    assert clients.asked(question(HOLD, ONE), 30.0) == 2
    assert clients.asked(question(LEAVE, TWO), 30.0) == 2
    assert clients.asked(question(LOOK, TWO), 31.0) == 2
    assert clients.asked(question(LOOK, TWO), 30.0 + HELD_S) == 1


@pytest.mark.parametrize("said", [b"", b"hold", b"hold x", b"hold " + b"0" * 17, b"take " + b"0" * 16, b"\xff" * 4096])
def test_who_does_not_say_who_it_is_counts_nobody(said: bytes) -> None:
    clients = Clients()
    assert clients.asked(said, 0.0) == 0
    assert clients.asked(question(LOOK, ONE), 0.0) == 1


def test_a_server_remembers_a_bounded_number() -> None:
    clients = Clients()
    for i in range(CLIENTS_MAX + 10):
        clients.asked(question(HOLD, f"{i:016x}"), 0.0)
    assert clients.asked(question(LOOK, TWO), 0.0) == CLIENTS_MAX
