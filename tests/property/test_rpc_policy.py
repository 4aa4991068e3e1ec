"""What must hold of every pick table, whatever the view and whoever is down."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from bns.model import HealthStatus
from gslb.model import limits
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Catalog
from gslb.rpc.policy.budget import RetryBudget
from gslb.rpc.policy.failure import Failure, classify
from gslb.rpc.policy.member import Member
from gslb.rpc.policy.table import build_table
from gslb.steer.view import ServiceView

DATACENTERS = ("a", "b", "c")

tasks = st.lists(
    st.tuples(
        st.sampled_from(DATACENTERS),
        st.sampled_from(list(HealthStatus)),
        st.booleans(),
        st.sampled_from([0.5, 1.0, 1.0, 7.0]),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=12,
)
weights = st.lists(st.integers(0, 5), min_size=3, max_size=3).filter(any)


def members_of(drawn) -> dict[str, Member]:
    members = {}
    for i, (datacenter, health, down, weight, in_flight) in enumerate(drawn):
        member = Member(ServiceEndpoint(f"/bns/{datacenter}/u/j/{i}", "127.0.0.1", 1000 + i, health, weight))
        member.down, member.in_flight = down, in_flight
        members[member.endpoint.task] = member
    return members


def table_of(drawn, share_weights):
    members = members_of(drawn)
    shares = {dc: weight / sum(share_weights) for dc, weight in zip(DATACENTERS, share_weights, strict=True)}
    plan = Plan("s", Stamp(1, 1, 1), shares={"a": shares})
    view = ServiceView.build("s", plan=plan, endpoints={task: member.endpoint for task, member in members.items()})
    return build_table(view, members, "a", Catalog()), list(members.values()), shares


def best_class(members: list[Member]) -> set[Member]:
    """Who may be picked, spelled out: the best health there is, of those the ones that answer, else all of those."""
    healthy = [member for member in members if member.endpoint.health is HealthStatus.HEALTHY]
    undrained = [member for member in members if member.endpoint.health is not HealthStatus.DRAINING]
    admitted = healthy or undrained or members
    return set([member for member in admitted if not member.down] or admitted)


@given(tasks, weights, st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_there_is_always_somebody_and_always_the_best(drawn, share_weights, rng: random.Random) -> None:
    table, members, _ = table_of(drawn, share_weights)
    assert table is not None
    allowed = best_class(members)
    for _ in range(20):
        assert table.pick(rng.random) in allowed


@given(tasks, weights)
@settings(max_examples=200, deadline=None)
def test_shares_sum_to_one_and_a_datacenter_that_serves_keeps_its_own(drawn, share_weights) -> None:
    table, members, shares = table_of(drawn, share_weights)
    assert abs(sum(table.shares.values()) - 1.0) < 1e-9
    assert table.cumulative[-1] == 1.0
    serving = {member.endpoint.datacenter for member in best_class(members)}
    assert set(table.shares) <= serving
    for datacenter in serving:
        assert table.shares.get(datacenter, 0.0) >= shares[datacenter] - 1e-9


@given(tasks, weights, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_a_retry_goes_to_somebody_else_as_long_as_there_is_one(drawn, share_weights, rng: random.Random) -> None:
    table, members, _ = table_of(drawn, share_weights)
    allowed = best_class(members)
    tried = [table.pick(rng.random)]
    while len(tried) < len(allowed):
        again = table.pick_again(tried, rng.random)
        assert again not in tried
        tried.append(again)
    assert table.pick_again(tried, rng.random) in allowed


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=300))
@settings(max_examples=100, deadline=None)
def test_retries_never_exceed_the_fraction_and_the_reserve(steps) -> None:
    budget = RetryBudget()
    now_s, requests, retries = 0.0, 0, 0
    for elapsed_s, is_request in steps:
        now_s += elapsed_s
        if is_request:
            budget.request(now_s)
            requests += 1
        elif budget.take(now_s):
            retries += 1
    reserve = limits.RETRY_RESERVE + limits.RETRY_RESERVE_PER_S * now_s
    assert retries <= limits.RETRY_BUDGET_FRACTION * requests + reserve + 1e-6


@given(st.text(max_size=300), st.text(max_size=40), st.sampled_from(["UNAVAILABLE", "INTERNAL", "OK?", ""]))
def test_no_text_is_taken_for_a_request_that_was_never_sent(details: str, target: str, code: str) -> None:
    """Only gRPC's own words about our own target are: anything else might have been executed."""
    if classify(code, details, target) is Failure.NEVER_SENT:
        assert code == "UNAVAILABLE"
        assert target in details
