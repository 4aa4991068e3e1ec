"""How long the balancer's step takes: 1,000 services x 8 datacenters x 40 localities on one core, cold and one change.

Run by `make bench`, or alone: `python -m bench.plan_time`. The service that changes loses one task in one datacenter.
"""

import json
import random
import statistics
import time
import tracemalloc
from dataclasses import replace
from typing import Final

from bns.model import HealthStatus
from gslb.balancer.inputs import Inputs, TaskState
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.resources import Backend, Catalog, ClientArea, Datacenter, Service

SERVICES: Final = 1000
DATACENTERS: Final = 8
LOCALITIES: Final = 40
TASKS_PER_DATACENTER: Final = 2
COLD_GOAL_S: Final = 5.0
CHANGE_GOAL_MS: Final = 50.0
COLD_RUNS: Final = 3
CHANGES: Final = 50
NOW_S: Final = 1_700_000_000.0


def planet(seed: int) -> Inputs:
    """Random places, Pareto demand at 70 % of capacity, every service in every datacenter."""
    rng = random.Random(seed)

    def place() -> Coordinates:
        return Coordinates(rng.uniform(-50, 65), rng.uniform(-180, 180))

    datacenters = {f"dc{i}": Datacenter(Meta(f"dc{i}"), f"region{i % 4}", place()) for i in range(DATACENTERS)}
    areas = {f"area{i}": ClientArea(Meta(f"area{i}"), place()) for i in range(LOCALITIES - DATACENTERS)}
    localities = [*datacenters, *areas]
    services, tasks, demand = {}, {}, {}
    for i in range(SERVICES):
        name = f"service{i}"
        jobs = {datacenter: f"/bns/{datacenter}/bench/job{i}" for datacenter in datacenters}
        rates = {job: rng.uniform(50, 200) for job in jobs.values()}
        services[name] = Service(Meta(name), tuple(Backend(job, rates[job]) for job in jobs.values()))
        tasks[name] = tuple(
            TaskState(f"{job}/{k}", datacenter, job, HealthStatus.HEALTHY)
            for datacenter, job in jobs.items()
            for k in range(TASKS_PER_DATACENTER)
        )
        wanted = {locality: rng.paretovariate(1.2) for locality in localities}
        unit = 0.7 * TASKS_PER_DATACENTER * sum(rates.values()) / sum(wanted.values())
        demand[name] = {locality: unit * rps for locality, rps in wanted.items()}
    return Inputs(Catalog(datacenters, areas, services), tasks, demand)


def _cold() -> tuple[list[float], BalancerState, Inputs]:
    """Seconds of the first step, on several planets; the last one's state."""
    seconds, state, inputs = [], BalancerState(), Inputs(Catalog())
    for seed in range(COLD_RUNS):
        inputs = planet(seed)
        start = time.perf_counter()
        state, decision = step(BalancerState(), inputs, now_s=NOW_S)
        seconds.append(time.perf_counter() - start)
        assert decision.recomputed == SERVICES
        published = {name: each.plan for name, each in decision.services.items() if each.plan}
        inputs = replace(inputs, previous=published)
    return seconds, state, inputs


def _one_change(state: BalancerState, inputs: Inputs) -> list[float]:
    """Milliseconds of a step in which one service lost a task."""
    milliseconds = []
    for i in range(CHANGES):
        name = f"service{i}"
        tasks = {**inputs.tasks, name: inputs.tasks[name][1:]}
        inputs = replace(inputs, tasks=tasks)
        start = time.perf_counter()
        state, decision = step(state, inputs, now_s=NOW_S + 1)
        milliseconds.append(1e3 * (time.perf_counter() - start))
        assert decision.recomputed == 1
        plan = decision.services[name].plan
        assert plan is not None
        inputs = replace(inputs, previous={**inputs.previous, name: plan})
    return milliseconds


def _all_demand_moves(state: BalancerState, inputs: Inputs) -> float:
    """Seconds of a step in which every service's demand moved by 5 %."""
    rng = random.Random(99)
    demand = {
        name: {locality: rps * rng.uniform(0.95, 1.05) for locality, rps in rates.items()}
        for name, rates in inputs.demand.items()
    }
    start = time.perf_counter()
    step(state, replace(inputs, demand=demand), now_s=NOW_S + 5)
    return time.perf_counter() - start


def _kept_mb() -> float:
    """Memory that the state of one planet holds, in MB."""
    inputs = planet(0)
    tracemalloc.start()
    state, _ = step(BalancerState(), inputs, now_s=NOW_S)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(state.services) == SERVICES
    return kept / 1e6


def rows() -> list[dict[str, object]]:
    """The rows of the project's benchmark table."""
    size = f"{SERVICES} services x {DATACENTERS} x {LOCALITIES}"
    cold, state, inputs = _cold()
    changed = _one_change(state, inputs)
    moved = _all_demand_moves(state, inputs)
    cold_s, change_ms = statistics.median(cold), statistics.median(changed)
    return [
        _row(f"plan, {size}, cold", cold_s, "s", [min(cold), max(cold)], COLD_GOAL_S),
        _row(f"plan, {size}, one service changed", change_ms, "ms", [min(changed), max(changed)], CHANGE_GOAL_MS),
        _row(f"plan, {size}, all demand moved by 5 %", moved, "s", None, COLD_GOAL_S),
        _row(f"plan, {size}, memory kept", _kept_mb(), "MB", None, None),
    ]


def _row(name: str, value: float, unit: str, spread: list[float] | None, goal: float | None) -> dict[str, object]:
    return {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "spread": [round(bound, 4) for bound in spread] if spread else None,
        "goal": f"<= {goal:g}" if goal is not None else None,
        "ok": value <= goal if goal is not None else None,
    }


if __name__ == "__main__":
    print(json.dumps(rows(), indent=1))
