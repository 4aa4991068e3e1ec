"""Load process: the balancer's step by itself, on one core of the machine. Commands: cold, change, moved, kept.

The planet is made up: random places, Pareto demand at 70 % of capacity, every service in every datacenter. The service
that changes loses one task in one datacenter.
"""

import os
import random
import time
import tracemalloc
from dataclasses import replace
from typing import Final

from bench.load.worker import Json, run
from bns.model import HealthStatus
from gslb.balancer.inputs import Inputs, TaskState
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.resources import Backend, Catalog, ClientArea, Datacenter, Service

TASKS_PER_DATACENTER: Final = 2
NOW_S: Final = 1_700_000_000.0


def planet(seed: int, services_count: int, datacenters_count: int, localities_count: int) -> Inputs:
    """Localities are the datacenters and client areas beside them."""
    rng = random.Random(seed)

    def place() -> Coordinates:
        return Coordinates(rng.uniform(-50, 65), rng.uniform(-180, 180))

    datacenters = {f"dc{i}": Datacenter(Meta(f"dc{i}"), f"region{i % 4}", place()) for i in range(datacenters_count)}
    areas = {f"area{i}": ClientArea(Meta(f"area{i}"), place()) for i in range(localities_count - datacenters_count)}
    localities = [*datacenters, *areas]
    services, tasks, demand = {}, {}, {}
    for i in range(services_count):
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


def _check(recomputed: int, least: int, most: int) -> None:
    """Raises when the step did not do what it is timed for."""
    if not least <= recomputed <= most:
        raise ValueError(f"{recomputed} services were solved, where it had to be {least} to {most}")


class _Clocks:
    """Time, and CPU time of this process: on a machine that others use too they differ."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def since(self) -> Json:
        return {"s": time.perf_counter() - self._wall_s, "cpu_s": time.process_time() - self._cpu_s}


class Planning:
    """One planet at a time, and the balancer's state after its last step."""

    def __init__(self) -> None:
        self._state = BalancerState()
        self._inputs = Inputs(Catalog())
        self._changes = 0

    async def cold(self, request: Json) -> Json:
        """Seconds of the first step on a new planet."""
        services = int(str(request["services"]))
        self._inputs = planet(
            int(str(request["seed"])), services, int(str(request["datacenters"])), int(str(request["localities"]))
        )
        started = _Clocks()
        self._state, decision = step(BalancerState(), self._inputs, now_s=NOW_S)
        took = started.since()
        _check(decision.recomputed, services, services)
        published = {name: each.plan for name, each in decision.services.items() if each.plan}
        self._inputs = replace(self._inputs, previous=published)
        # What was published is compared with what was decided once, not in the steps to be timed.
        self._state, decision = step(self._state, self._inputs, now_s=NOW_S)
        _check(decision.recomputed, 0, 0)
        return took

    async def change(self, _: Json) -> Json:
        """Seconds of a step in which one service lost a task.

        What it brings about is dropped: else the next step would go on with the moves that this one began.
        """
        name = f"service{self._changes % len(self._inputs.tasks)}"
        self._changes += 1
        inputs = replace(self._inputs, tasks={**self._inputs.tasks, name: self._inputs.tasks[name][1:]})
        started = _Clocks()
        decision = step(self._state, inputs, now_s=NOW_S + 1)[1]
        took = started.since()
        _check(decision.recomputed, 1, 1)
        return took

    async def moved(self, _: Json) -> Json:
        """Seconds of a step in which every service's demand moved by up to 5 %."""
        rng = random.Random(99)
        demand = {
            name: {locality: rps * rng.uniform(0.95, 1.05) for locality, rps in rates.items()}
            for name, rates in self._inputs.demand.items()
        }
        started = _Clocks()
        step(self._state, replace(self._inputs, demand=demand), now_s=NOW_S + 5)
        return started.since()

    async def kept(self, _: Json) -> Json:
        """Memory that the state of the planet holds, in MB."""
        tracemalloc.start()
        state, _decision = step(BalancerState(), self._inputs, now_s=NOW_S)
        kept, _peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(state.services) == len(self._inputs.tasks)
        return {"mb": kept / 1e6}


if __name__ == "__main__":
    # One core, whatever the solver would like.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    planning = Planning()
    run({"cold": planning.cold, "change": planning.change, "moved": planning.moved, "kept": planning.kept})
