"""What a mirror believes to hold, compared with what etcd says."""

import random

from bns.etcd.digest import Comparison, Held, digest_of
from bns.etcd.v3 import rpc_pb2 as pb


def kv(key: bytes, revision: int) -> pb.KeyValue:
    return pb.KeyValue(key=key, mod_revision=revision)


def put(key: bytes, revision: int) -> pb.Event:
    return pb.Event(type=pb.Event.PUT, kv=kv(key, revision))


def deleted(key: bytes, revision: int) -> pb.Event:
    return pb.Event(type=pb.Event.DELETE, kv=kv(key, revision))


def test_the_digest_follows_any_history() -> None:
    rng = random.Random(7)
    held = Held(())
    truth: dict[bytes, int] = {}
    for revision in range(1, 2000):
        key = b"k%d" % rng.randrange(50)
        if rng.random() < 0.3:
            held.apply(deleted(key, revision))
            truth.pop(key, None)
        else:
            held.apply(put(key, revision))
            truth[key] = revision
        assert held.digest == digest_of(kv(key, at) for key, at in truth.items())
    assert len(held) == len(truth) > 10
    assert held.digest == Held([kv(key, at) for key, at in reversed(truth.items())]).digest


def test_a_missed_put_delete_or_change_shows() -> None:
    whole = digest_of([kv(b"a", 1), kv(b"b", 2)])
    assert whole != digest_of([kv(b"a", 1)])
    assert whole != digest_of([kv(b"a", 1), kv(b"b", 3)])
    assert whole != digest_of([kv(b"a", 1), kv(b"b", 2), kv(b"c", 3)])
    assert digest_of([]) == 0


def test_a_mirror_that_stands_where_the_list_does() -> None:
    comparison = Comparison(5, 111)
    assert comparison.verdict(5, 111, overdue=False) is True
    assert comparison.verdict(9, 111, overdue=False) is True  # nothing under the prefix changed since 5


def test_a_mirror_behind_the_list_is_given_time() -> None:
    comparison = Comparison(5, 111)
    assert comparison.verdict(7, 222, overdue=False) is None
    comparison.applied(7, 222)
    assert comparison.verdict(7, 222, overdue=False) is True


def test_an_event_that_never_comes_is_a_difference() -> None:
    comparison = Comparison(5, 111)
    assert comparison.verdict(7, 222, overdue=False) is None
    assert comparison.verdict(7, 222, overdue=True) is False


def test_a_mirror_past_the_list_is_judged_by_what_it_was() -> None:
    comparison = Comparison(5, 111)
    comparison.applied(7, 200)
    comparison.applied(7, 222)  # two keys in one transaction
    comparison.applied(9, 333)
    assert comparison.verdict(7, 222, overdue=False) is True
    assert comparison.verdict(8, 222, overdue=False) is True
    assert comparison.verdict(7, 200, overdue=False) is False
    assert comparison.verdict(6, 111, overdue=False) is True
    assert comparison.verdict(8, 333, overdue=False) is False
    assert len(comparison) == 4


def test_an_etcd_that_went_back_is_a_difference() -> None:
    assert Comparison(5, 111).verdict(4, 111, overdue=False) is False
