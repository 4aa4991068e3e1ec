"""What must hold of every choice, whatever the plan and the health."""

import itertools
import math
from collections import Counter

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.plan import Plan
from gslb.steer.choice import choose, datacenter_order, live_shares, pick_datacenter, shares_for, stable_choice
from gslb.steer.table import table_of
from gslb.steer.view import ServiceView, serving
from tests.support.resources import DATACENTERS, ENDPOINT_MAPS, LOCALITIES, plans, shares

KEYS = [f"192.0.{i // 256}.{i % 256}/32".encode() for i in range(4000)]
UNITS = st.floats(0, 1, exclude_max=True)
views = st.builds(ServiceView.build, st.just("backend"), st.none(), st.none() | plans(), ENDPOINT_MAPS)
localities = st.sampled_from((*LOCALITIES, "never-heard-of", ""))


def _error(share: float, draws: int) -> float:
    """Six standard deviations of the fraction of `draws` that a share gets: one run in 10^8 goes beyond."""
    return 6 * math.sqrt(share * (1 - share) / draws) + 1e-9


@given(shares())
def test_a_table_ends_at_one_and_gives_each_its_share(row: dict[str, float]) -> None:
    table = table_of(row)
    assert table is not None
    assert table.cumulative[-1] == 1.0
    assert list(table.cumulative) == sorted(table.cumulative)
    steps = 1000
    drawn = Counter(table.pick((i + 0.5) / steps) for i in range(steps))
    for name, share in row.items():
        assert abs(drawn[name] / steps - share) <= 1 / steps + 1e-9


@given(shares(), UNITS)
def test_only_shares_above_zero_are_picked(row: dict[str, float], u: float) -> None:
    row_with_nothing = {**row, "nowhere": 0.0}
    assert pick_datacenter(row_with_nothing, u) in row
    assert stable_choice(row_with_nothing, str(u).encode()) in row


@given(shares())
@settings(max_examples=25)
def test_stable_choice_hits_the_shares(row: dict[str, float]) -> None:
    drawn = Counter(stable_choice(row, key) for key in KEYS)
    for name, share in row.items():
        assert abs(drawn[name] / len(KEYS) - share) <= _error(share, len(KEYS))


@given(shares(), st.data())
@settings(max_examples=25)
def test_losing_a_datacenter_moves_only_its_keys(row: dict[str, float], data: st.DataObject) -> None:
    assume(len(row) > 1)
    lost = data.draw(st.sampled_from(sorted(row)))
    rest = {name: share / (1 - row[lost]) for name, share in row.items() if name != lost}
    for key in KEYS[:1000]:
        before, after = stable_choice(row, key), stable_choice(rest, key)
        assert after != lost
        assert before in (lost, after)


@given(shares(), shares())
@settings(max_examples=25)
def test_a_change_of_shares_moves_no_more_than_the_bound(old: dict[str, float], new: dict[str, float]) -> None:
    needed = sum(max(0.0, new.get(name, 0.0) - old.get(name, 0.0)) for name in DATACENTERS)
    bound = 2 * needed / (1 + needed)
    moved = sum(stable_choice(old, key) != stable_choice(new, key) for key in KEYS) / len(KEYS)
    assert needed - _error(needed, len(KEYS)) * 2 <= moved <= bound + _error(min(bound, 0.5), len(KEYS))


def _moving(old: dict[str, float], new: dict[str, float]) -> float:
    """The part of keys that move by the exponential race: one minus the probability Jaccard index."""
    names = [name for name in old if name in new]
    stay = 0.0
    for one in names:
        ratios = [max(old.get(name, 0.0) / old[one], new.get(name, 0.0) / new[one]) for name in {*old, *new}]
        stay += 1 / sum(ratios)
    return 1 - stay


@given(shares(), shares())
@settings(max_examples=25)
def test_a_change_of_shares_moves_what_the_race_says(old: dict[str, float], new: dict[str, float]) -> None:
    expected = _moving(old, new)
    moved = sum(stable_choice(old, key) != stable_choice(new, key) for key in KEYS) / len(KEYS)
    assert abs(moved - expected) <= _error(min(max(expected, 0.001), 0.999), len(KEYS)) + 1e-3


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
@settings(max_examples=25)
def test_between_two_datacenters_no_key_moves_that_need_not(before: float, after: float) -> None:
    old, new = {"a": before, "b": 1 - before}, {"a": after, "b": 1 - after}
    gained = "a" if after >= before else "b"
    for key in KEYS[:1000]:
        if stable_choice(old, key) == gained:
            assert stable_choice(new, key) == gained


def test_no_choice_by_key_and_shares_alone_moves_less_for_all_changes() -> None:
    rows = [("a", "b"), ("a", "c"), ("b", "c")]
    pairs = list(itertools.combinations(range(3), 2))
    # Whatever a key picks in each row, it is at the same place in one of the three pairs of rows at most.
    best = max(sum(picked[i] == picked[j] for i, j in pairs) for picked in itertools.product(*rows))
    assert best == 1
    least = 1 - best / len(pairs)
    assert math.isclose(least, 2 * 0.5 / (1 + 0.5))
    halves = [dict.fromkeys(row, 0.5) for row in rows]
    moved = sum(stable_choice(halves[i], key) != stable_choice(halves[j], key) for i, j in pairs for key in KEYS)
    assert abs(moved / len(pairs) / len(KEYS) - least) <= _error(least, len(KEYS))


@given(shares(), st.binary(max_size=40), st.randoms(use_true_random=False))
def test_the_order_in_which_shares_are_given_does_not_matter(row: dict[str, float], key: bytes, rng) -> None:
    names = list(row)
    rng.shuffle(names)
    shuffled = {name: row[name] for name in names}
    assert stable_choice(row, key) == stable_choice(shuffled, key)
    assert pick_datacenter(row, 0.37) == pick_datacenter(shuffled, 0.37)


@given(views, localities)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_live_shares_sum_to_one_over_datacenters_that_serve(view: ServiceView, locality: str) -> None:
    live = live_shares(view, locality)
    if not view.endpoints:
        assert live == {}
        return
    assert abs(sum(live.values()) - 1) < 1e-9
    assert set(live) <= set(view.serving)
    planned = shares_for(view, locality)
    if set(planned) <= set(view.serving):
        assert live == planned


@given(views, localities, UNITS)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_choice_is_somebody_who_may_serve(view: ServiceView, locality: str, u: float) -> None:
    chosen = choose(view, locality, u)
    if not view.endpoints:
        assert chosen is None
        return
    assert chosen is not None
    datacenter, members = chosen
    assert members
    assert all(endpoint.datacenter == datacenter for endpoint in members)
    assert set(members) <= set(serving(view.endpoints.values()))
    assert datacenter_order(view, locality)
    assert set(datacenter_order(view, locality)) == set(view.serving)


@given(plans(), st.sampled_from(DATACENTERS))
@settings(max_examples=40)
def test_choices_follow_the_live_shares_while_a_datacenter_is_lost(plan: Plan, lost: str) -> None:
    endpoints = {
        task: ServiceEndpoint(task, "127.0.0.1", 80, HealthStatus.UNHEALTHY if name == lost else HealthStatus.HEALTHY)
        for name in DATACENTERS
        for task in (f"/bns/{name}/u/backend/0",)
    }
    view = ServiceView.build("backend", None, plan, endpoints)
    locality = min(plan.shares)
    live = live_shares(view, locality)
    draws = 4000
    # Evenly spaced numbers stand for random ones; the second draw is a hash of them, so it needs its error.
    drawn = Counter(choice[0] for i in range(draws) if (choice := choose(view, locality, (i + 0.5) / draws)))
    assert lost not in drawn
    for name, share in live.items():
        assert abs(drawn[name] / draws - share) <= _error(share, draws) + 2 / draws
