"""Capacity planning: the SRE book's numbers, and what any one region's loss needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gslb.balancer.planning import CapacityPlan, Demand, RegionDemand, plan_capacity, tasks_for, with_growth
from gslb.cli.plan import FIELDS
from gslb.config.errors import ConfigError
from gslb.config.load import load_values
from gslb.model.errors import InvalidValueError

BOOK = Demand(
    100.0,
    (
        RegionDemand("north-america", 1430.0),
        RegionDemand("south-america", 290.0, spare=1),
        RegionDemand("europe", 1400.0),
        RegionDemand("asia", 350.0),
    ),
)


def tasks(plan: CapacityPlan) -> dict[str, int]:
    return {region.name: region.tasks for region in plan.regions}


def test_the_books_numbers() -> None:
    plan = plan_capacity(BOOK)
    assert plan.one_place == 37
    assert tasks(plan) == {"north-america": 17, "south-america": 4, "europe": 16, "asia": 6}
    lost = {region.name: region.if_lost for region in plan.regions}
    assert {name: loss.remaining_rps for name, loss in lost.items()} == {
        "north-america": 2600, "south-america": 3900, "europe": 2700, "asia": 3700,
    }  # fmt: skip
    assert {name for name, loss in lost.items() if not loss.absorbed} == {"north-america", "europe"}
    assert lost["north-america"].short_rps / plan.demand_rps == pytest.approx(0.25, abs=0.005)
    assert lost["europe"].short_rps / plan.demand_rps == pytest.approx(0.22, abs=0.005)
    assert plan.largest.name == "north-america"


def test_headroom_and_growth() -> None:
    assert tasks_for(1400, 100, 0.0) == 14
    assert tasks_for(1400, 100, 0.3) == 20
    assert tasks_for(1400.001, 100, 0.0) == 15
    assert tasks_for(0, 100, 0.0) == 0
    assert plan_capacity(with_growth(BOOK, 2.0)).one_place == 72


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5)), min_size=2, max_size=8),
    st.sampled_from([0.0, 0.1, 0.5]),
)
def test_any_region_may_be_lost_and_no_task_is_too_many(rows: list[tuple[int, int]], headroom: float) -> None:
    if not any(peak for peak, _ in rows):
        return
    regions = tuple(RegionDemand(f"r{i}", float(peak), spare) for i, (peak, spare) in enumerate(rows))
    demand = Demand(100.0, regions, headroom=headroom, survive_region_loss=True)
    plan = plan_capacity(demand)
    assert all(region.if_lost.absorbed for region in plan.regions)
    whole = tasks_for(plan.demand_rps, 100.0, headroom)
    assert all(plan.tasks - region.tasks >= whole for region in plan.regions)
    if any(region.added for region in plan.regions):
        # With one task less in all, the loss of the largest would leave too little, whoever had it.
        base = [region.needed + region.spare for region in plan.regions]
        assert plan.tasks == whole + max(*base, -(-whole // (len(base) - 1)))


@pytest.mark.parametrize(
    ("demand", "said"),
    [
        (Demand(0.0, BOOK.regions), "task_capacity_rps is 0.0"),
        (Demand(float("nan"), BOOK.regions), "task_capacity_rps is nan"),
        (Demand(100.0, ()), "there are 0 regions"),
        (Demand(100.0, (BOOK.regions[0],) * 2), "region north-america is given twice"),
        (Demand(100.0, (RegionDemand("a", -1.0),)), "peak_rps of a is -1.0"),
        (Demand(100.0, (RegionDemand("a", 0.0),)), "no region has any peak_rps"),
        (Demand(100.0, BOOK.regions, headroom=1.0), "headroom is 1.0"),
        (Demand(1e-6, BOOK.regions), "tasks: at most"),
        (Demand(100.0, BOOK.regions[:1], survive_region_loss=True), "one region only"),
    ],
)
def test_what_makes_no_sense_is_said(demand: Demand, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        plan_capacity(demand)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "f:1: there are 0 documents in it"),
        ("task_capacity_rps: 100\nregion: []\n", "f:2: region: no such field: did you mean 'regions'?"),
        (
            "task_capacity_rps: lots\nregions: [{name: a, peak_rps: 1}]\n",
            "f:1: task_capacity_rps: 'lots' is not a number",
        ),
        ("task_capacity_rps: 1\nregions:\n- {name: a}\n", "peak_rps: missing"),
        ("task_capacity_rps: 1\nregions: []\n", "has 0 items"),
    ],
)
def test_mistakes_in_the_file_have_their_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_values(text, "f", FIELDS)
    assert said in str(caught.value)
