"""Policies of live channels, sync and asyncio: a slow task, keys that stay, servers that lie and servers that say nothing."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

import gslb.rpc
from gslb.rpc import metrics
from gslb.rpc.client.api import ChannelOptions
from tests.support.echo import BIDI, CLIENT_STREAM, SERVER_STREAM, SERVICE, UNARY, Planet, name_of, wait_until
from tests.support.loaded_server import LoadedTask

KINDS = ("sync", "aio")
TASKS = [f"us-east1/u/echo/{i}" for i in range(4)]
SLOW = TASKS[0]


LIES = (
    ("lie=rif=-1 lat=nan util=1e-300 rps=1e308 room=inf",),
    (f"lie={'rif=0 ' * 100}",),
    ("lie=rif=0 lat=0 util=0.000001 rps=1000000000 room=1000000000",),
)


def _planet_of(*words: tuple[str, ...]) -> Iterator[Planet]:
    """Tasks of one datacenter: these words for each of them."""
    of = {f"/bns/{task}": said for task, said in zip(TASKS, words, strict=True)}
    made = Planet(TASKS, replicas=1, make=lambda name: LoadedTask(name, 0, *of[name]))
    made.serve({"us-east1": 1.0})
    yield made
    gslb.rpc.close_all()
    made.close()


@pytest.fixture(scope="module")
def uneven() -> Iterator[Planet]:
    yield from _planet_of(("sleep=0.3",), *[("sleep=0.03",)] * 3)


@pytest.fixture(scope="module")
def costly() -> Iterator[Planet]:
    yield from _planet_of(("burn=0.02",), *[("burn=0.001",)] * 3)


@pytest.fixture(scope="module")
def liars() -> Iterator[Planet]:
    yield from _planet_of(*LIES, ("sleep=0.001",))


@pytest.fixture(scope="module")
def mutes() -> Iterator[Planet]:
    yield from _planet_of(("mute", "sleep=0.3"), *[("mute", "sleep=0.03")] * 3)


class Answers:
    """What came back: who answered what was asked when, and the channel's own account at the end."""

    def __init__(self) -> None:
        self.names: list[tuple[float, str]] = []
        self.errors: list[grpc.StatusCode] = []
        self.explained: dict[str, object] = {}

    def count(self, since_s: float = 0.0) -> Counter[str]:
        """Answers by task to what was asked from so many seconds after the first question on."""
        first_s = min(at_s for at_s, _ in self.names)
        return Counter(name for at_s, name in self.names if at_s - first_s >= since_s)

    def part(self, task: str, since_s: float = 0.0) -> float:
        counts = self.count(since_s)
        return counts[task] / counts.total()


def _sync(planet: Planet, for_s: float, lines: int, options: ChannelOptions) -> Answers:
    found, until_s = Answers(), time.monotonic() + for_s
    with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1", **options) as channel:
        stub = channel.unary_unary(UNARY)

        def line() -> None:
            while time.monotonic() < until_s:
                try:
                    found.names.append((time.monotonic(), name_of(stub(b"x", timeout=10))))
                except grpc.RpcError as error:
                    found.errors.append(error.code())

        threads = [threading.Thread(target=line) for _ in range(lines)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found.explained = channel.explain()
    return found


async def _aio(planet: Planet, for_s: float, lines: int, options: ChannelOptions) -> Answers:
    found, until_s = Answers(), time.monotonic() + for_s
    async with gslb.rpc.aio_channel(SERVICE, control=planet.control, locality="us-east1", **options) as channel:
        stub = channel.unary_unary(UNARY)

        async def line() -> None:
            while time.monotonic() < until_s:
                try:
                    found.names.append((time.monotonic(), name_of(await stub(b"x", timeout=10))))
                except grpc.RpcError as error:
                    found.errors.append(error.code())

        await asyncio.gather(*(line() for _ in range(lines)))
        found.explained = channel.explain()
    return found


def called(kind: str, planet: Planet, for_s: float, *, lines: int = 6, **options) -> Answers:
    """So many lines of calls, one after the other in each, for so long."""
    given = ChannelOptions(**options)
    found = _sync(planet, for_s, lines, given) if kind == "sync" else asyncio.run(_aio(planet, for_s, lines, given))
    assert found.errors == []
    return found


# A slow task


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_task_gets_less_of_prequal_and_adaptive_than_of_a_round(kind: str, uneven: Planet) -> None:
    blind = called(kind, uneven, 1.5, policy="round_robin")
    assert blind.part(SLOW) == pytest.approx(0.25, abs=0.04)
    for policy in ("prequal", "adaptive"):
        found = called(kind, uneven, 2.5, policy=policy)
        assert found.part(SLOW, 0.5) < 0.16, (policy, found.count(0.5))
        assert set(found.count()) == set(TASKS)
        explained = found.explained
        assert explained["policy"] == policy
        assert explained["probes"] > 10
        assert explained["probes_failed"] <= explained["probes"] / 10
        heard = {task["task"]: task["knows"] for task in explained["endpoints"] if task["knows"]}
        assert heard, explained
    # With its answers to go by, adaptive hears of every task that it asked.
    assert explained["reports"] > 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_costs_more_gets_less_of_weighted_round_robin(kind: str, costly: Planet) -> None:
    # Reports are believed once they have come for ten seconds.
    found = called(kind, costly, 15.0, lines=2, policy="weighted_round_robin")
    early = found.count() - found.count(8.0)
    assert early[SLOW] / early.total() == pytest.approx(0.25, abs=0.04)
    assert found.part(SLOW, 12.5) < 0.15, found.count(12.5)
    weights = {task["task"]: task["knows"]["weight"] for task in found.explained["endpoints"]}
    assert weights[f"/bns/{SLOW}"] < 0.5 * min(weights[f"/bns/{task}"] for task in TASKS[1:])
    assert found.explained["reports"] == found.count().total()
    assert found.explained["probes"] == 0


def test_a_latency_critical_service_is_prequal_s_without_a_word_in_the_client(uneven: Planet) -> None:
    uneven.world.latency_critical = True
    uneven.serve({"us-east1": 1.0})
    try:
        found = called("sync", uneven, 2.0)
        assert found.explained["policy"] == "prequal"
        assert found.part(SLOW, 0.5) < 0.16, found.count(0.5)
        assert called("sync", uneven, 0.2, policy="round_robin").explained["policy"] == "round_robin"
    finally:
        uneven.world.latency_critical = False
        uneven.serve({"us-east1": 1.0})


def test_pages_and_metrics_say_what_a_policy_knows(uneven: Planet) -> None:
    registry = CollectorRegistry()
    metrics.register(registry)
    with gslb.rpc.channel(SERVICE, control=uneven.control, locality="us-east1", policy="prequal") as channel:
        stub = channel.unary_unary(UNARY)
        wait_until(
            lambda: bool(stub(b"x", timeout=10)) and any(task["knows"] for task in channel.explain()["endpoints"])
        )
        text = generate_latest(registry).decode()
        (told,) = json.loads(json.dumps(gslb.rpc.status()))["channels"]
        page = gslb.rpc.status_html()
    assert 'gslb_rpc_client_policy{policy="prequal",service="echo"} 1.0' in text
    assert f'gslb_rpc_client_load_probes_total{{service="echo"}} {float(told["probes"])}' in text
    assert 'gslb_rpc_client_load_probes_failed_total{service="echo"} 0.0' in text
    (knows, *_) = [task["knows"] for task in told["endpoints"] if task["knows"]]
    assert knows.keys() == {"in_flight", "latency_s", "age_s"}
    assert "latency_s" in page


# Servers that lie or say nothing


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["prequal", "adaptive", "load_interpretation", "weighted_round_robin"])
def test_a_server_that_lies_costs_nobody_a_call(kind: str, policy: str, liars: Planet) -> None:
    found = called(kind, liars, 1.5, policy=policy)
    counts = found.count()
    assert set(counts) == set(TASKS), counts
    # The honest one is not starved, however grand the others.
    assert counts[TASKS[3]] > 0.02 * counts.total(), counts
    states = {task["task"]: task["down"] for task in found.explained["endpoints"]}
    assert not any(states.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["prequal", "adaptive"])
def test_servers_that_do_not_know_the_question_are_served_as_by_least_request(
    kind: str, policy: str, mutes: Planet
) -> None:
    found = called(kind, mutes, 2.5, policy=policy)
    # Asked at once, and then after a second or two: not with each of hundreds of requests.
    assert 4 <= found.explained["probes"] <= 16
    assert found.explained["probes_failed"] == found.explained["probes"]
    assert found.explained["reports"] == 0
    assert all(not task["knows"] and not task["down"] for task in found.explained["endpoints"])
    assert found.part(SLOW, 0.5) < 0.16, found.count(0.5)


# Affinity


@pytest.fixture(scope="module")
def echoes() -> Iterator[Planet]:
    made = Planet(TASKS, replicas=1)
    made.serve({"us-east1": 1.0})
    yield made
    gslb.rpc.close_all()
    made.close()


def _user(key: str) -> tuple[tuple[str, str], ...]:
    return (("user-id", key),)


def _arities(channel) -> dict[str, Callable[[str], str]]:
    """Asks with a key, in each of the four ways; says who answered."""
    unary, server_stream = channel.unary_unary(UNARY), channel.unary_stream(SERVER_STREAM)
    client_stream, bidi = channel.stream_unary(CLIENT_STREAM), channel.stream_stream(BIDI)
    return {
        "unary": lambda key: name_of(unary(b"x", timeout=10, metadata=_user(key))),
        "future": lambda key: name_of(unary.future(b"x", timeout=10, metadata=_user(key)).result()),
        "server stream": lambda key: name_of(b"".join(server_stream(b"x", timeout=10, metadata=_user(key)))),
        "client stream": lambda key: name_of(client_stream(iter([b"x"]), timeout=10, metadata=_user(key))),
        "bidi": lambda key: name_of(b"".join(bidi(iter([b"x"]), timeout=10, metadata=_user(key)))),
    }


async def _aio_homes(planet: Planet, keys: list[str]) -> dict[str, set[str]]:
    async with gslb.rpc.aio_channel(
        SERVICE, control=planet.control, locality="us-east1", affinity="user-id"
    ) as channel:
        unary, server_stream = channel.unary_unary(UNARY), channel.unary_stream(SERVER_STREAM)
        client_stream, bidi = channel.stream_unary(CLIENT_STREAM), channel.stream_stream(BIDI)
        homes: dict[str, set[str]] = {}
        for key in keys:
            said = {"timeout": 10, "metadata": _user(key)}
            answers = [await unary(b"x", **said), await client_stream(iter([b"x"]), **said)]
            answers += [answer async for answer in server_stream(b"x", **said)]
            answers += [answer async for answer in bidi(iter([b"x"]), **said)]
            homes[key] = {name_of(answer) for answer in answers}
        return homes


def test_a_key_has_one_home_for_all_arities_sync_and_aio(echoes: Planet) -> None:
    keys = [f"user {i}" for i in range(40)]
    with gslb.rpc.channel(SERVICE, control=echoes.control, locality="us-east1", affinity="user-id") as channel:
        ways = _arities(channel)
        homes = {key: {way(key) for way in ways.values()} for key in keys}
        assert channel.explain()["policy"] == "ring_hash"
    assert all(len(home) == 1 for home in homes.values()), homes
    assert {name for home in homes.values() for name in home} == set(TASKS)
    assert asyncio.run(_aio_homes(echoes, keys)) == homes
    with gslb.rpc.channel(SERVICE, control=echoes.control, locality="us-east1", affinity="user-id") as channel:
        stub = channel.unary_unary(UNARY)
        keyless = Counter(name_of(stub(b"x", timeout=10)) for _ in range(100))
        assert set(keyless) == set(TASKS)


def test_only_the_keys_of_a_task_that_dies_move_and_they_come_home_with_it(echoes: Planet) -> None:
    keys = [f"user {i}" for i in range(60)]
    with gslb.rpc.channel(
        SERVICE, control=echoes.control, locality="us-east1", affinity="user-id", idempotent=True
    ) as channel:
        ask = partial(
            lambda stub, key: name_of(stub(b"x", timeout=10, metadata=_user(key))), channel.unary_unary(UNARY)
        )
        before = {key: ask(key) for key in keys}
        dead = TASKS[2]
        echoes.tasks[dead].kill()
        assert dead in before.values()
        after = {key: ask(key) for key in keys}
        assert {key for key in keys if after[key] != before[key]} == {key for key in keys if before[key] == dead}
        assert len({after[key] for key in keys if before[key] == dead}) > 1
        # Still where they went: nothing flaps while it is away.
        assert {key: ask(key) for key in keys} == after
        again = type(echoes.tasks[dead])(f"/bns/{dead}", echoes.tasks[dead].port)
        echoes.tasks[dead].close()
        echoes.tasks[dead] = again
        wait_until(lambda: not any(task["down"] for task in channel.explain()["endpoints"]), 20)
        assert {key: ask(key) for key in keys} == before


# A task that is new


@pytest.mark.parametrize("policy", ["least_request", "adaptive"])
def test_a_task_that_was_just_started_gets_little_at_first(echoes: Planet, policy: str) -> None:
    endpoints = [task.endpoint() for task in echoes.tasks.values()]
    new = [replace(endpoints[0], started_s=time.time()), *endpoints[1:]]
    shares = {"us-east1": {"us-east1": 1.0}}
    parts = []
    for said in (new, [replace(endpoints[0], started_s=time.time() - 60.0), *endpoints[1:]]):
        echoes.world.set(said, shares)
        parts.append(called("sync", echoes, 1.5, policy=policy).part(SLOW, 0.5))
    assert parts[0] < 0.12 < 0.17 < parts[1] < 0.33, parts
    echoes.serve({"us-east1": 1.0})
