"""The hub: what streams are sent, byte for byte decoded again, under changes and slow reading."""

import asyncio
import random

import pytest

from bns.model import HealthStatus
from gslb.control.fanout.encoding import field
from gslb.control.fanout.hub import MESSAGE_BYTES, Hub
from gslb.model import limits
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.errors import InvalidValueError
from gslb.v1 import config_pb2, discovery_pb2

H, X = HealthStatus.HEALTHY, HealthStatus.UNHEALTHY
CONFIG = config_pb2.Service(port_name="grpc").SerializeToString()


def endpoint(n, health=H, port=80, dc="us"):
    return ServiceEndpoint(f"/bns/{dc}/u/j/{n}", "127.0.0.1", port, health)


def endpoints(*ones):
    return {one.task: one for one in ones}


def subscribe(hub, **request):
    stream = hub.attach()
    hub.subscribe(stream, discovery_pb2.SubscribeRequest(**request))
    return stream


def read(stream):
    return [discovery_pb2.Update.FromString(message) for message in stream.messages()]


def one(stream):
    (update,) = read(stream)
    return update


@pytest.fixture
def hub():
    made = Hub("r1")
    made.set_config("a", CONFIG)
    made.set_endpoints("a", endpoints(*(endpoint(n) for n in range(20))))
    made.set_config("b", CONFIG)
    made.set_endpoints("b", endpoints(endpoint("b0", dc="eu")))
    made.set_catalog(b"")
    return made


def test_everything_first_then_only_what_changed(hub):
    stream = subscribe(hub, services=["a"])
    first = one(stream)
    assert first.replica == "r1"
    assert first.synced
    assert [change.service for change in first.services] == ["a"]
    assert first.services[0].endpoints_snapshot
    assert len(first.services[0].upserted) == 20
    assert first.services[0].config.port_name == "grpc"
    assert read(stream) == []

    hub.update_endpoints("a", endpoints(endpoint(3, X)))
    hub.update_endpoints("a", {**endpoints(endpoint(4, X)), "/bns/us/u/j/5": None})
    hub.update_endpoints("b", endpoints(endpoint("b0", X, dc="eu")))
    (change,) = one(stream).services
    assert not change.endpoints_snapshot
    assert [(each.task[-1], each.health) for each in change.upserted] == [("3", X), ("4", X)]
    assert list(change.removed) == ["/bns/us/u/j/5"]
    assert not change.HasField("config")


def test_a_slow_reader_gets_the_newest_state_once(hub):
    stream = subscribe(hub, services=["a"])
    read(stream)
    for round_ in range(5000):
        hub.update_endpoints("a", endpoints(endpoint(1, port=1000 + round_)))
    (change,) = one(stream).services
    assert [each.port for each in change.upserted] == [5999]


def test_what_changed_back_is_sent_as_it_is(hub):
    stream = subscribe(hub, services=["a"])
    read(stream)
    hub.update_endpoints("a", endpoints(endpoint(1, X)))
    hub.update_endpoints("a", endpoints(endpoint(1, H)))
    (change,) = one(stream).services
    assert [each.health for each in change.upserted] == [H]


def test_a_reader_that_is_too_far_behind_gets_a_snapshot(hub):
    stream = subscribe(hub, services=["a"])
    read(stream)
    for round_ in range(30):
        hub.set_endpoints("a", endpoints(*(endpoint(n + 15 * round_) for n in range(15))))
    (change,) = one(stream).services
    assert change.endpoints_snapshot
    assert len(change.upserted) == 15


def test_streams_at_the_same_place_share_the_bytes(hub):
    streams = [subscribe(hub, services=["a"]) for _ in range(3)]
    for stream in streams:
        read(stream)
    hub.update_endpoints("a", endpoints(endpoint(3, X)))
    record = hub.record("a")
    cursor = streams[0]._cursors["a"]
    assert record.since(cursor) is record.since(cursor)
    assert len({message for stream in streams for message in stream.messages()}) == 1


def test_a_service_is_never_emptied(hub):
    stream = subscribe(hub, services=["b"])
    read(stream)
    hub.set_endpoints("b", {})
    hub.update_endpoints("b", {"/bns/eu/u/j/b0": None})
    assert read(stream) == []
    assert hub.record("b").held
    late = subscribe(hub, services=["b"])
    assert len(one(late).services[0].upserted) == 1
    hub.set_endpoints("b", endpoints(endpoint("b1", dc="eu")))
    holds = {"b": {"/bns/eu/u/j/b0": H}}
    fold(holds, one(stream))
    assert list(holds["b"]) == ["/bns/eu/u/j/b1"]
    assert not hub.record("b").held


def test_only_deletion_takes_a_service_away_and_a_new_one_of_its_name_starts_anew(hub):
    streams = [subscribe(hub, services=["a"]), subscribe(hub, all_services=True)]
    for stream in streams:
        read(stream)
    hub.delete("a")
    for stream in streams:
        (change,) = one(stream).services
        assert change.deleted
    assert list(one(subscribe(hub, services=["a"])).unknown_services) == ["a"]
    hub.set_config("a", CONFIG)
    hub.set_endpoints("a", endpoints(endpoint(99)))
    for stream in streams:
        (change,) = one(stream).services
        assert change.endpoints_snapshot
        assert [each.task[-2:] for each in change.upserted] == ["99"]


def test_deleted_and_made_again_between_two_reads_is_a_snapshot(hub):
    stream = subscribe(hub, services=["a"])
    read(stream)
    hub.delete("a")
    hub.set_config("a", CONFIG)
    hub.set_endpoints("a", endpoints(endpoint(99)))
    (change,) = one(stream).services
    assert change.endpoints_snapshot, "else the endpoints of the old one would stay"
    assert len(change.upserted) == 1


def test_a_subscription_is_replaced_as_a_whole(hub):
    stream = subscribe(hub, services=["a", "nope"])
    assert list(one(stream).unknown_services) == ["nope"]
    hub.subscribe(stream, discovery_pb2.SubscribeRequest(services=["b"], catalog=True))
    update = one(stream)
    assert [change.service for change in update.services] == ["b"]
    assert update.HasField("catalog")
    hub.update_endpoints("a", endpoints(endpoint(3, X)))
    assert read(stream) == []
    hub.subscribe(stream, discovery_pb2.SubscribeRequest(services=["a", "b"]))
    assert [change.service for change in one(stream).services] == ["a"], "what it has is not sent again"


def test_the_same_subscription_again_is_answered_without_content(hub):
    stream = subscribe(hub, all_services=True)
    read(stream)
    hub.subscribe(stream, discovery_pb2.SubscribeRequest(all_services=True))
    update = one(stream)
    assert update.synced
    assert not update.services


def test_a_new_service_reaches_those_who_asked_for_it_or_for_all(hub):
    streams = [subscribe(hub, services=["c"]), subscribe(hub, all_services=True), subscribe(hub, services=["a"])]
    for stream in streams:
        read(stream)
    hub.set_config("c", CONFIG)
    assert [[change.service for update in read(stream) for change in update.services] for stream in streams] == [
        ["c"],
        ["c"],
        [],
    ]


def test_a_plan_of_an_unknown_service_waits(hub):
    hub.set_plan("ghost", b"")
    assert not hub.knows("ghost")


def test_large_first_synchronisations_come_in_parts(hub):
    padding = config_pb2.Service(dns_names=["x" * 1000] * 300).SerializeToString()
    for n in range(10):
        hub.set_config(f"big{n}", padding)
    updates = read(subscribe(hub, all_services=True, catalog=True))
    assert len(updates) > 2
    assert [update.synced for update in updates] == [False] * (len(updates) - 1) + [True]
    assert sorted(change.service for update in updates for change in update.services) == [
        "a",
        "b",
        *(f"big{n}" for n in range(10)),
    ]
    assert all(update.ByteSize() < 2 * MESSAGE_BYTES for update in updates)


def test_bounds(hub):
    stream = hub.attach()
    with pytest.raises(InvalidValueError):
        hub.subscribe(stream, discovery_pb2.SubscribeRequest(services=["x" * 64]))
    with pytest.raises(InvalidValueError):
        hub.subscribe(stream, discovery_pb2.SubscribeRequest(services=["x"] * (limits.SERVICES_MAX + 1)))
    hub.detach(stream)
    assert not hub.streams
    assert not hub._of_service


async def test_waking(hub):
    stream = subscribe(hub, services=["a"])
    await stream.changed()
    read(stream)
    hub.update_endpoints("b", endpoints(endpoint("b0", X, dc="eu")))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await stream.changed()
    hub.update_endpoints("a", endpoints(endpoint(3, X)))
    await asyncio.wait_for(stream.changed(), 5)


def test_fields_of_every_length():
    for size in (0, 1, 127, 128, 300, 20_000):
        text = "x" * size
        message = discovery_pb2.Update.FromString(field(1, text.encode()))
        assert message.replica == text


def test_random_changes_leave_every_reader_with_the_same_state(hub):
    """Whatever order of changes and reads: each reader that catches up holds exactly what the hub holds."""
    rng = random.Random(3)
    streams = [subscribe(hub, all_services=True) for _ in range(4)]
    held = [{} for _ in streams]
    sent = 0
    for _ in range(3000):
        service = rng.choice("abc")
        task = rng.randrange(30)
        change = None if rng.random() < 0.3 else endpoint(task, rng.choice([H, X]))
        if rng.random() < 0.02:
            hub.delete(service)
        elif rng.random() < 0.05:
            hub.set_endpoints(service, endpoints(*(endpoint(n) for n in range(rng.randrange(1, 30)))))
        else:
            hub.update_endpoints(service, {f"/bns/us/u/j/{task}": change})
        index = rng.randrange(len(streams))
        if rng.random() < 0.3:
            sent += sum(fold(held[index], update) for update in read(streams[index]))
    for stream, holds in zip(streams, held, strict=True):
        for update in read(stream):
            fold(holds, update)
        actual = {
            name: {task: int(each.health) for task, each in hub.record(name).endpoints.items()} for name in hub.names()
        }
        assert holds == actual
    assert sent > 1000


def fold(holds, update):
    for change in update.services:
        if change.deleted:
            holds.pop(change.service)
            continue
        if change.endpoints_snapshot:
            holds[change.service] = {}
        mine = holds.setdefault(change.service, {})
        for task in change.removed:
            mine.pop(task, None)
        for each in change.upserted:
            mine[each.task] = each.health
    return sum(len(change.upserted) + len(change.removed) for change in update.services)
