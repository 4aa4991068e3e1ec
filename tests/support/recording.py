"""A planet's steps under chance, as the planner hands them to the recorder."""

import random
from collections.abc import Iterator
from dataclasses import replace

from bns.model import HealthStatus
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.model.resources import CapacityMode, DrainScope
from gslb.recorder.frames import Step
from tests.support import balancer as tb

PERIOD_S = 5.0


def a_planet():
    """Two services, one of them with learned capacity and a guaranteed part of a shared limit."""
    inputs = tb.planet({"europe": 50.0, "asia": 30.0, "us-east1": 100.0})
    learned = tb.service("learned", 40.0)
    learned = replace(
        learned,
        backends=tuple(replace(one, mode=CapacityMode.UTILIZATION, request_cpu_s=0.01) for one in learned.backends),
    )
    datacenters = {**inputs.catalog.datacenters}
    datacenters["us-east1"] = replace(datacenters["us-east1"], cpu_cores=1.0)
    catalog = replace(
        inputs.catalog, datacenters=datacenters, services={**inputs.catalog.services, learned.name: learned}
    )
    return replace(
        inputs,
        catalog=catalog,
        tasks={**inputs.tasks, "learned": tb.tasks_of(learned, 3)},
        demand={**inputs.demand, "learned": {"north-america": 60.0, "asia": 20.0}},
        rtt_ms={("europe", "us-east1"): 91.5},
        callers={"backend": {("us-east1", "learned"): 0.5}},
    )


def steps(count: int, seed: int = 1) -> Iterator[Step]:
    """`count` steps: noise in demand and in reports, now and then a drain, ill tasks, a new service's definition."""
    rng = random.Random(seed)
    inputs, state = a_planet(), BalancerState()
    for number in range(1, count + 1):
        now_s = tb.NOW_S + PERIOD_S * number
        inputs = replace(
            _changed(inputs, now_s, number, rng), changed=rng.choice([None, frozenset(), frozenset({"learned"})])
        )
        after, decision = step(state, inputs, now_s=now_s)
        yield Step(number, now_s, state, inputs, decision)
        state = after
        published = {name: one.plan for name, one in decision.services.items() if one.changed and one.plan is not None}
        inputs = replace(inputs, previous={**inputs.previous, **published})


def _changed(inputs, now_s, number, rng):
    match rng.randrange(6):
        case 0:
            demand = {
                name: {place: rps * rng.uniform(0.8, 1.25) for place, rps in rates.items()}
                for name, rates in inputs.demand.items()
            }
            return replace(inputs, demand=demand)
        case 1:
            return tb.drained(
                inputs,
                tb.drain(rng.choice([DrainScope.DATACENTER]), rng.choice(list(tb.PLACES)), from_s=now_s, for_s=20),
            )
        case 2:
            health = rng.choice([HealthStatus.HEALTHY, HealthStatus.HEALTHY, HealthStatus.UNHEALTHY])
            return tb.with_health(inputs, "backend", health, [rng.choice(list(tb.PLACES))])
        case 3 | 4:
            reported = tuple(
                replace(
                    one,
                    ok_rps=(rps := rng.uniform(5, 30)),
                    cpu_utilization=rng.choice([0.05 + rps / 50, float("nan")]),
                    report_age_s=rng.uniform(0, 5),
                    report=number,
                )
                for one in inputs.tasks["learned"]
            )
            return replace(inputs, tasks={**inputs.tasks, "learned": reported})
        case _:
            return inputs
