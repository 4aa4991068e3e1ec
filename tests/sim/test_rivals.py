"""What the balancer is measured against does what its name says: else the comparison shows nothing."""

import numpy as np
import pytest

from bench.balancer_rivals import edge_first, instance, plain_lp, waterfall

RIVALS = [waterfall, edge_first, plain_lp]


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("seed", range(3))
def test_all_demand_is_assigned_within_capacity(rival, seed: int):
    one = instance(seed, 30, 6)
    flow = rival(one.cost_ms, one.demand, one.capacity)
    assert flow.min() >= 0
    assert flow.sum(axis=1) == pytest.approx(one.demand)
    assert (flow.sum(axis=0) <= one.capacity * (1 + 1e-6)).all()


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_cheaper_than_the_plain_program(seed: int):
    one = instance(seed, 30, 6)
    cost = [float((rival(one.cost_ms, one.demand, one.capacity) * one.cost_ms).sum()) for rival in RIVALS]
    assert min(cost) == pytest.approx(cost[2])
    assert max(cost) > cost[2]


def test_an_instance_is_loaded_as_it_says():
    one = instance(1, 50, 8, load=0.7)
    assert one.demand.sum() == pytest.approx(1)
    assert one.capacity.sum() == pytest.approx(1 / 0.7)
    assert (np.argsort(instance(1, 50, 8, load=0.7).demand) == np.argsort(one.demand)).all()
