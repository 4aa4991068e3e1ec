"""Key ranges, comparisons, endpoints, and what a failure allows."""

import random

import grpc
import pytest

from bns.etcd import ops
from bns.etcd.backoff import Backoff
from bns.etcd.errors import Compacted, EtcdError, NoSpace, PermissionDenied, error_of
from bns.etcd.pool import _judge, _Verdict, parse_endpoint
from bns.etcd.v3 import rpc_pb2 as pb

CODE = grpc.StatusCode


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"/bns/", b"/bns0"), (b"a", b"b"), (b"a\xff", b"b"), (b"a\xff\xff", b"b"), (b"\xff", b"\0"), (b"", b"\0")],
)
def test_prefix_end(prefix: bytes, end: bytes) -> None:
    assert ops.prefix_end(prefix) == end


def test_the_empty_prefix_begins_at_the_first_key() -> None:
    assert ops.prefix_range(b"") == (b"\0", b"\0")
    assert ops.prefix_range(b"a") == (b"a", b"b")


def test_comparisons_say_target_relation_and_value() -> None:
    assert ops.compare_mod(b"k", "==", 7) == pb.Compare(
        result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=b"k", mod_revision=7
    )
    assert ops.compare_create(b"k", "!=", 7) == pb.Compare(
        result=pb.Compare.NOT_EQUAL, target=pb.Compare.CREATE, key=b"k", create_revision=7
    )
    assert ops.compare_version(b"k", ">", 7) == pb.Compare(
        result=pb.Compare.GREATER, target=pb.Compare.VERSION, key=b"k", version=7
    )
    assert ops.compare_value(b"k", "<", b"v") == pb.Compare(
        result=pb.Compare.LESS, target=pb.Compare.VALUE, key=b"k", value=b"v"
    )
    assert ops.compare_lease(b"k", "==", 9) == pb.Compare(
        result=pb.Compare.EQUAL, target=pb.Compare.LEASE, key=b"k", lease=9
    )


def test_an_unknown_relation_is_refused() -> None:
    with pytest.raises(ValueError, match="=>"):
        ops.compare_mod(b"k", "=>", 1)


@pytest.mark.parametrize(
    ("endpoint", "tls", "target"),
    [
        ("127.0.0.1:2379", False, "127.0.0.1:2379"),
        ("127.0.0.1:2379", True, "127.0.0.1:2379"),
        (" etcd-0.example:2379 ", False, "etcd-0.example:2379"),
        ("http://127.0.0.1:2379/", False, "127.0.0.1:2379"),
        ("https://[::1]:2379", True, "[::1]:2379"),
    ],
)
def test_endpoints(endpoint: str, tls: bool, target: str) -> None:
    assert parse_endpoint(endpoint, tls=tls) == target


@pytest.mark.parametrize(("endpoint", "tls"), [("https://127.0.0.1:2379", False), ("http://127.0.0.1:2379", True)])
def test_a_scheme_that_does_not_fit_is_refused(endpoint: str, tls: bool) -> None:
    with pytest.raises(EtcdError, match=r"do not fit: (give a certificate authority|write https)"):
        parse_endpoint(endpoint, tls=tls)


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1", ":2379", "host:", "host:0", "host:65536", "host:2a", "host:-1"])
def test_bad_endpoints_are_named(endpoint: str) -> None:
    with pytest.raises(EtcdError, match="is not HOST:PORT"):
        parse_endpoint(endpoint, tls=False)


@pytest.mark.parametrize(
    ("code", "details", "verdict"),
    [
        (CODE.UNAVAILABLE, "failed to connect to all addresses; last error: refused", _Verdict.NOT_APPLIED),
        (CODE.UNAVAILABLE, "DNS resolution failed for etcd-9:2379", _Verdict.NOT_APPLIED),
        (CODE.UNAVAILABLE, "etcdserver: no leader", _Verdict.NOT_APPLIED),
        (CODE.RESOURCE_EXHAUSTED, "etcdserver: too many requests", _Verdict.NOT_APPLIED),
        # Sent, and then the connection broke: "connect" in the text does not make it unsent.
        (CODE.UNAVAILABLE, "Connection reset by peer", _Verdict.AMBIGUOUS),
        (CODE.UNAVAILABLE, "Socket closed", _Verdict.AMBIGUOUS),
        (CODE.UNAVAILABLE, "etcdserver: request timed out", _Verdict.AMBIGUOUS),
        (CODE.UNAVAILABLE, "etcdserver: leader changed", _Verdict.AMBIGUOUS),
        (CODE.DEADLINE_EXCEEDED, "Deadline Exceeded", _Verdict.AMBIGUOUS),
        (CODE.UNAUTHENTICATED, "etcdserver: invalid auth token", _Verdict.LOGIN_AGAIN),
        (CODE.INVALID_ARGUMENT, "etcdserver: revision of auth store is old", _Verdict.LOGIN_AGAIN),
        (CODE.PERMISSION_DENIED, "etcdserver: permission denied", _Verdict.FINAL),
        (CODE.INVALID_ARGUMENT, "etcdserver: key is not provided", _Verdict.FINAL),
        (CODE.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", _Verdict.FINAL),
        (CODE.NOT_FOUND, "etcdserver: requested lease not found", _Verdict.FINAL),
    ],
)
def test_what_a_failure_allows(code: grpc.StatusCode, details: str, verdict: _Verdict) -> None:
    assert _judge(code, details) is verdict


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (CODE.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", Compacted),
        (CODE.PERMISSION_DENIED, "etcdserver: permission denied", PermissionDenied),
        (CODE.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password", PermissionDenied),
        (CODE.INVALID_ARGUMENT, "etcdserver: user name is empty", PermissionDenied),
        (CODE.FAILED_PRECONDITION, "etcdserver: authentication is not enabled", PermissionDenied),
        (CODE.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", NoSpace),
        (CODE.INVALID_ARGUMENT, "etcdserver: key is\nnot provided", EtcdError),
    ],
)
def test_which_error_a_final_answer_is(code: grpc.StatusCode, details: str, kind: type[EtcdError]) -> None:
    error = error_of("Put", code, details)
    assert type(error) is kind
    assert "\n" not in str(error)


def test_backoff_grows_is_bounded_jittered_and_starts_anew() -> None:
    backoff = Backoff(random.Random(1), first_s=0.1, most_s=1.0)
    waits = [backoff.next_s() for _ in range(10)]
    for wait_s, bound_s in zip(waits, [0.1, 0.2, 0.4, 0.8, 1, 1, 1, 1, 1, 1], strict=True):
        assert bound_s / 2 <= wait_s <= bound_s
    assert len(set(waits)) == 10
    backoff.reset()
    assert backoff.next_s() <= 0.1
