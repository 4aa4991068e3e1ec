"""The pure rules of the RPC library: failures, back-off, budget, two choices, the pick table."""

import random
from collections import Counter

import pytest

from bns.model import HealthStatus
from gslb.model import limits
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Catalog, Datacenter
from gslb.rpc.policy.backoff import backoff_s
from gslb.rpc.policy.budget import RetryBudget
from gslb.rpc.policy.failure import Failure, classify, may_repeat
from gslb.rpc.policy.member import Member
from gslb.rpc.policy.p2c import group_of, without
from gslb.rpc.policy.table import build_table
from gslb.steer.view import ServiceView

REFUSED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:80: Failed to connect to remote host"


class TestFailure:
    @pytest.mark.parametrize(
        ("code", "details", "expected"),
        [
            ("UNAVAILABLE", REFUSED, Failure.NEVER_SENT),
            ("UNAVAILABLE", "Stream removed (Socket closed)", Failure.BROKEN),
            ("UNAVAILABLE", "recvmsg:Connection reset by peer", Failure.BROKEN),
            ("UNAVAILABLE", "", Failure.BROKEN),
            ("UNAVAILABLE", "try again later", Failure.REFUSED),
            ("NOT_FOUND", "", Failure.ANSWERED),
            ("INTERNAL", "Socket closed", Failure.ERRED),
            ("UNKNOWN", "Exception calling application", Failure.ERRED),
            ("RESOURCE_EXHAUSTED", "overloaded; don't retry", Failure.SHED),
            ("UNIMPLEMENTED", "", Failure.DENIED),
            ("DEADLINE_EXCEEDED", "", Failure.ANSWERED),
        ],
    )
    def test_status_says_what_happened(self, code: str, details: str, expected: Failure) -> None:
        assert classify(code, details, "127.0.0.1:80") is expected

    def test_a_relayed_failure_is_not_our_own(self) -> None:
        """A server may hand on what its own client said: that request was sent, and executed in part."""
        assert classify("UNAVAILABLE", REFUSED, "127.0.0.1:8") is not Failure.NEVER_SENT
        assert classify("UNAVAILABLE", REFUSED, "127.0.0.2:80") is not Failure.NEVER_SENT

    def test_ipv6_targets_are_recognised(self) -> None:
        details = "failed to connect to all addresses; last error: UNKNOWN: ipv6:%5B::1%5D:80: Connection refused"
        assert classify("UNAVAILABLE", details, "[::1]:80") is Failure.NEVER_SENT

    def test_only_a_long_wait_witnesses_against_a_task(self) -> None:
        assert classify("DEADLINE_EXCEEDED", "", "t", waited_s=limits.WITNESS_TIMEOUT_MIN_S) is Failure.TIMED_OUT
        assert classify("DEADLINE_EXCEEDED", "", "t", waited_s=0.01) is Failure.ANSWERED

    @pytest.mark.parametrize(
        ("failure", "always", "if_idempotent"),
        [
            (Failure.NEVER_SENT, True, True),
            (Failure.BROKEN, False, True),
            (Failure.REFUSED, False, True),
            (Failure.ERRED, False, True),
            (Failure.SHED, False, False),
            (Failure.DENIED, False, False),
            (Failure.TIMED_OUT, False, False),
            (Failure.ANSWERED, False, False),
        ],
    )
    def test_what_may_be_repeated(self, failure: Failure, always: bool, if_idempotent: bool) -> None:
        assert may_repeat(failure, idempotent=False) is always
        assert may_repeat(failure, idempotent=True) is if_idempotent


class TestBackoff:
    def test_doubles_up_to_the_most(self) -> None:
        assert [backoff_s(n, 0.1, 5.0, 1.0) for n in (1, 2, 3, 7)] == pytest.approx([0.1, 0.2, 0.4, 5.0])

    def test_is_jittered_and_never_zero(self) -> None:
        assert backoff_s(1, 0.1, 5.0, 0.0) == pytest.approx(0.05)

    def test_a_month_of_failures_does_not_overflow(self) -> None:
        assert backoff_s(10**9, 0.1, 5.0, 0.5) <= 5.0


class TestBudget:
    def test_a_lone_failure_may_be_retried(self) -> None:
        budget = RetryBudget()
        budget.request(1.0)
        assert budget.take(1.0)

    def test_an_outage_is_not_multiplied(self) -> None:
        """10,000 requests at 1,000 a second that all fail: about 10 % more go out, not 200 %."""
        budget = RetryBudget()
        retries = 0
        for i in range(10_000):
            now_s = 1.0 + i / 1000
            budget.request(now_s)
            retries += budget.take(now_s) + budget.take(now_s)
        assert 900 <= retries <= 1_000 + limits.RETRY_RESERVE + limits.RETRY_RESERVE_PER_S * 10 + 1

    def test_a_busy_client_can_retry_what_breaks_at_once(self) -> None:
        """A datacenter dies under 1,000 rps with 300 requests in flight: all of them may go elsewhere."""
        budget = RetryBudget()
        for i in range(30_000):
            budget.request(1.0 + i / 1000)
        assert sum(budget.take(31.0) for _ in range(300)) == 300

    def test_nothing_is_saved_up_for_long(self) -> None:
        """A client of 1 rps cannot save a day's budget and spend it on one outage."""
        budget = RetryBudget()
        for i in range(86_400):
            budget.request(float(i))
        assert sum(budget.take(86_400.0) for _ in range(1000)) <= limits.RETRY_RESERVE + 2

    def test_the_reserve_comes_back_and_no_further(self) -> None:
        budget = RetryBudget()
        assert sum(budget.take(1.0) for _ in range(100)) == limits.RETRY_RESERVE
        assert not budget.take(1.0)
        assert sum(budget.take(100_000.0) for _ in range(1000)) == limits.RETRY_RESERVE

    def test_a_clock_that_steps_back_gives_nothing(self) -> None:
        budget = RetryBudget(reserve=0.0)
        assert not budget.take(100.0)
        assert not budget.take(50.0)


def member(name: str, health: HealthStatus = HealthStatus.HEALTHY, weight: float = 1.0) -> Member:
    return Member(ServiceEndpoint(f"/bns/{name}", "127.0.0.1", 1000, health, weight))


class TestTwoChoices:
    def test_fewer_in_flight_wins(self) -> None:
        busy, idle = member("a/u/j/0"), member("a/u/j/1")
        busy.in_flight = 1
        group = group_of("a", [busy, idle])
        assert all(group.pick(random.Random(n).random) is idle for n in range(50))

    def test_even_when_nobody_has_anything(self) -> None:
        group = group_of("a", [member(f"a/u/j/{i}") for i in range(10)])
        rng = random.Random(1).random
        counts = Counter(group.pick(rng).endpoint.task for _ in range(20_000))
        assert min(counts.values()) > 1_700
        assert max(counts.values()) < 2_300

    def test_weights_are_honoured_idle_and_busy(self) -> None:
        small, big = member("a/u/j/0"), member("a/u/j/1", weight=3.0)
        group = group_of("a", [small, big])
        rng = random.Random(1).random
        counts = Counter(group.pick(rng).endpoint.task for _ in range(20_000))
        assert counts["/bns/a/u/j/1"] / 20_000 == pytest.approx(0.75, abs=0.02)
        for _ in range(400):
            group.pick(rng).in_flight += 1
        assert big.in_flight / small.in_flight == pytest.approx(3.0, rel=0.1)

    def test_the_longest_queue_stays_short(self) -> None:
        """1,000 requests that stay over 100 tasks: two choices leave 10-13 on the fullest, one choice about 20."""
        group = group_of("a", [member(f"a/u/j/{i}") for i in range(100)])
        rng = random.Random(7).random
        for _ in range(1000):
            group.pick(rng).in_flight += 1
        assert max(one.in_flight for one in group.members) <= 13

    def test_without_those_tried(self) -> None:
        one, two = member("a/u/j/0"), member("a/u/j/1")
        group = group_of("a", [one, two])
        assert (left := without(group, [one])) is not None
        assert left.members == (two,)
        assert without(group, [one, two]) is None


CATALOG = Catalog(
    datacenters={
        name: Datacenter(Meta(name), "r", Coordinates(0.0, east))
        for name, east in (("near", 0.0), ("mid", 10.0), ("far", 100.0))
    }
)


def table_for(
    members: list[Member],
    shares: dict[str, float] | None,
    contingencies: dict[str, dict[str, dict[str, float]]] | None = None,
):
    plan = None
    if shares is not None:
        plan = Plan("s", Stamp(1, 1, 1), shares={"near": shares}, contingencies=contingencies or {})
    view = ServiceView.build("s", plan=plan, endpoints={one.endpoint.task: one.endpoint for one in members})
    return build_table(view, {one.endpoint.task: one for one in members}, "near", CATALOG)


def drawn(table, count: int = 4000) -> Counter[str]:
    rng = random.Random(3).random
    return Counter(table.pick(rng).endpoint.datacenter for _ in range(count))


class TestTable:
    def test_shares_of_the_plan(self) -> None:
        table = table_for([member("near/u/j/0"), member("far/u/j/0")], {"near": 0.75, "far": 0.25})
        assert drawn(table)["near"] / 4000 == pytest.approx(0.75, abs=0.03)

    def test_nothing_without_a_plan_or_an_endpoint(self) -> None:
        assert table_for([member("near/u/j/0")], None) is None
        assert table_for([], {"near": 1.0}) is None

    def test_a_datacenter_that_is_down_gives_its_share_to_the_nearest_with_room(self) -> None:
        lost = member("near/u/j/0")
        lost.down = True
        members = [lost, member("mid/u/j/0"), member("far/u/j/0")]
        assert set(drawn(table_for(members, {"near": 1.0}))) == {"mid"}
        assert set(drawn(table_for(members, {"near": 0.9, "far": 0.1}))) == {"far"}
        planned = {"near": {"near": {"far": 1.0}}}
        assert set(drawn(table_for(members, {"near": 1.0}, planned))) == {"far"}

    def test_draining_and_unhealthy_tasks_get_nothing(self) -> None:
        members = [
            member("near/u/j/0", HealthStatus.DRAINING),
            member("near/u/j/1", HealthStatus.UNHEALTHY),
            member("near/u/j/2"),
        ]
        table = table_for(members, {"near": 1.0})
        assert {table.pick(random.random).endpoint.task for _ in range(100)} == {"/bns/near/u/j/2"}
        assert not table.panic

    def test_all_unhealthy_serve_all_and_say_so(self) -> None:
        members = [member(f"near/u/j/{i}", HealthStatus.UNHEALTHY) for i in range(3)]
        members.append(member("near/u/j/9", HealthStatus.DRAINING))
        table = table_for(members, {"near": 1.0})
        assert {table.pick(random.random).endpoint.task for _ in range(200)} == {f"/bns/near/u/j/{i}" for i in range(3)}
        assert table.panic

    def test_nobody_answers_everybody_is_tried(self) -> None:
        members = [member("near/u/j/0"), member("near/u/j/1")]
        for one in members:
            one.down = True
        table = table_for(members, {"near": 1.0})
        assert {table.pick(random.random).endpoint.task for _ in range(200)} == {"/bns/near/u/j/0", "/bns/near/u/j/1"}
        assert table.panic

    def test_retries_go_to_another_task_then_to_another_datacenter(self) -> None:
        here = [member(f"near/u/j/{i}") for i in range(3)]
        table = table_for([*here, member("mid/u/j/0"), member("far/u/j/0")], {"near": 1.0})
        for seed in range(50):
            rng = random.Random(seed).random
            first = table.pick(rng)
            second = table.pick_again([first], rng)
            third = table.pick_again([first, second], rng)
            assert second is not first
            assert second.endpoint.datacenter == "near"
            assert third.endpoint.datacenter == "mid"

    def test_a_retry_leaves_a_datacenter_that_has_no_other_task(self) -> None:
        only = member("near/u/j/0")
        table = table_for([only, member("mid/u/j/0")], {"near": 1.0})
        assert table.pick_again([only], random.random).endpoint.datacenter == "mid"

    def test_what_comes_back_from_a_lost_datacenter_goes_to_its_heirs_and_not_to_where_most_goes(self) -> None:
        lost = [member(f"near/u/j/{i}") for i in range(2)]
        for one in lost:
            one.down = True
        members = [*lost, member("mid/u/j/0"), *(member(f"far/u/j/{i}") for i in range(2))]
        rng = random.Random(5).random
        for planned, heirs in (
            ({"near": {"near": {"far": 1.0}}}, {"far": 1.0}),
            ({"near": {"near": {"far": 0.75, "mid": 0.25}}}, {"far": 0.75, "mid": 0.25}),
            ({}, {"mid": 1.0}),
        ):
            table = table_for(members, {"near": 0.1, "mid": 0.9}, planned)
            went = Counter(table.pick_again([lost[0]], rng).endpoint.datacenter for _ in range(2000))
            assert {name: count / 2000 for name, count in went.items()} == pytest.approx(heirs, abs=0.04)
            # Whoever fails at the heir as well is not sent there again while there is another one.
            assert table.pick_again([members[3], lost[0]], rng) is not members[3]

    def test_a_retry_without_alternative_asks_the_same_task(self) -> None:
        only = member("near/u/j/0")
        assert table_for([only], {"near": 1.0}).pick_again([only], random.random) is only


class TestMember:
    def test_a_failure_takes_it_out_once(self) -> None:
        one = member("a/u/j/0")
        assert one.note(Failure.NEVER_SENT)
        assert not one.note(Failure.NEVER_SENT)
        assert one.down
        assert (one.failures, one.failed) == (1, 2)

    def test_an_answer_is_an_answer(self) -> None:
        one = member("a/u/j/0")
        for failure in (None, Failure.ANSWERED, Failure.REFUSED, Failure.ERRED, Failure.DENIED):
            assert not one.note(failure)
        assert (one.ok, one.failed, one.down) == (5, 0, False)

    def test_a_timeout_is_a_witness_and_no_verdict(self) -> None:
        one = member("a/u/j/0")
        assert not one.note(Failure.TIMED_OUT)
        assert (one.failed, one.down) == (1, False)

    def test_failed_probes_wait_longer(self) -> None:
        one = member("a/u/j/0")
        one.note(Failure.NEVER_SENT)
        waits = []
        for _ in range(10):
            waits.append(one.retry_in_s(Failure.NEVER_SENT, 1.0))
            one.probed(ok=False)
        assert waits[0] == pytest.approx(limits.TASK_BACKOFF_MIN_S)
        assert waits == sorted(waits)
        assert waits[-1] == pytest.approx(limits.TASK_BACKOFF_MAX_S)
        one.probed(ok=True)
        assert (one.down, one.failures) == (False, 0)

    def test_a_broken_connection_is_looked_at_soon(self) -> None:
        one = member("a/u/j/0")
        one.note(Failure.BROKEN)
        assert one.retry_in_s(Failure.BROKEN, 0.999) < limits.TASK_BACKOFF_MIN_S
