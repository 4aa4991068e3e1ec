"""The choice of a datacenter and of addresses: stable, in proportion, minimal in what moves."""

from collections import Counter

import pytest

from bns.model import HealthStatus
from dns_frontend.table.steering import client_key, prepare, rotated
from dns_frontend.zone.rtype import RType
from tests.support.dns import catalog, endpoints, plan, service, view_of

KEYS = [client_key(4, (10 << 24) + (index << 8)) for index in range(4000)]


def chosen(shares, keys=KEYS, **kwargs):
    found = prepare(view_of(planned=plan({"na": shares}), **kwargs), catalog())
    return {key: found.steer(RType.A, "na", key).datacenter for key in keys}


def test_each_datacenter_gets_its_share_of_the_prefixes():
    counts = Counter(chosen({"us-east1": 0.6, "europe-west1": 0.3, "asia-east1": 0.1}).values())
    assert counts["us-east1"] / len(KEYS) == pytest.approx(0.6, abs=0.05)
    assert counts["europe-west1"] / len(KEYS) == pytest.approx(0.3, abs=0.05)
    assert counts["asia-east1"] / len(KEYS) == pytest.approx(0.1, abs=0.05)


def test_little_more_than_the_needed_part_moves_when_shares_change():
    before = chosen({"us-east1": 0.6, "europe-west1": 0.4})
    after = chosen({"us-east1": 0.5, "europe-west1": 0.4, "asia-east1": 0.1})
    moved = sum(before[key] != after[key] for key in KEYS)
    # A tenth has to move. A hash of the key over the new shares without regard to the old would move more than half.
    assert 0.07 < moved / len(KEYS) < 0.2


def test_only_the_clients_of_a_lost_datacenter_move():
    shares = {"us-east1": 0.5, "europe-west1": 0.3, "asia-east1": 0.2}
    before = chosen(shares)
    members = endpoints({"us-east1": 2, "asia-east1": 2})
    members |= endpoints({"europe-west1": 2}, health=HealthStatus.UNHEALTHY)
    after = chosen(shares, members=members)
    assert "europe-west1" not in after.values()
    assert all(after[key] == before[key] for key in KEYS if before[key] != "europe-west1")


def test_clients_of_one_prefix_are_one():
    assert client_key(4, 0x0A010203) == client_key(4, 0x0A0102FF)
    assert client_key(4, 0x0A010203) != client_key(4, 0x0A010303)
    base = 0x20010DB8 << 96
    assert client_key(6, base + (0xFF << 64)) == client_key(6, base)
    assert client_key(6, base + (0x100 << 64)) != client_key(6, base)
    assert client_key(4, 0) != client_key(6, 0)


def test_different_services_choose_independently():
    one = prepare(view_of(planned=plan({"na": {"us-east1": 0.5, "asia-east1": 0.5}})), catalog())
    served = service("b.example", name="b")
    two = prepare(view_of(served, plan({"na": {"us-east1": 0.5, "asia-east1": 0.5}}, name="b")), catalog())
    same = sum(one.steer(1, "na", key).datacenter == two.steer(1, "na", key).datacenter for key in KEYS)
    assert same / len(KEYS) == pytest.approx(0.5, abs=0.06)


def test_many_addresses_are_spread_over_the_clients():
    found = prepare(view_of(service("a.example", addresses=4), members=endpoints({"us-east1": 40})), catalog())
    counts: Counter[bytes] = Counter()
    for key in KEYS:
        steered = found.steer(RType.A, "na", key)
        assert len(set(steered.rdatas)) == 4
        assert steered == found.steer(RType.A, "na", key), "one client, one answer"
        counts.update(steered.rdatas)
    assert len(counts) == 40
    assert max(counts.values()) < 1.5 * min(counts.values())


def test_an_address_of_several_tasks_is_given_once():
    members = {
        **endpoints({"us-east1": 1}),
        **endpoints({"us-east1": 1}, job="other"),
    }
    found = prepare(view_of(members=members), catalog())
    assert found.steer(RType.A, "na", KEYS[0]).rdatas == (b"\x7f\x01\x00\x01",)


def test_rotation():
    assert rotated((b"a", b"b", b"c"), 4) == (b"b", b"c", b"a")
    assert rotated((b"a",), 7) == (b"a",)
    assert rotated((), 7) == ()


def test_what_an_answer_depends_on_is_said():
    alone = prepare(view_of(members=endpoints({"us-east1": 2})), catalog()).steer(1, "na", KEYS[0])
    assert (alone.by_locality, alone.by_key) == (False, False)
    near = prepare(view_of(), catalog()).steer(1, "na", KEYS[0])
    assert (near.by_locality, near.by_key) == (True, False)
    split = prepare(view_of(planned=plan({"na": {"us-east1": 0.5, "asia-east1": 0.5}})), catalog())
    assert split.steer(1, "na", KEYS[0]).by_key
    assert prepare(view_of(), catalog()).steer(RType.AAAA, "na", KEYS[0]) is None


def test_without_a_plan_the_nearest_that_serves():
    view = view_of()
    unplanned = prepare(view.with_plan(None), catalog())
    assert unplanned.steer(1, "asia", KEYS[0]).datacenter == "asia-east1"
