"""What the flight recorder costs the planner: time of a step with it, and CPU of its own thread.

In one process, as in a replica: the balancer's step on one thread, the recorder's on another. Time is CPU time, so that
what else the machine does is no cost of ours. What the recorder adds to the planner's thread is handing the step over; it
is done with the step before, as it is when steps are a period apart. What it adds to the process, its own thread and all, is
shown twice: as what that thread used, over the same step's time, and in pairs: the same step from the same state with and
without it, one right after the other, who is first by turns. A pair's difference is a hundredth of two measurements that
each scatter by more than that on a busy machine, so its range says how far to believe its median.
"""

import random
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench.load.planning import NOW_S, planet
from bench.rows import Row, median_row
from bench.stage import progress
from gslb.balancer.inputs import Inputs
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.control.recorder import Recorder
from gslb.recorder.frames import Step
from gslb.recorder.ring import Bounds

GOAL_PERCENT: Final = 2.0
WAIT_S: Final = 60.0


@dataclass(slots=True)
class _Run:
    """One planet from step to step; `inputs` moves a little each time: every service's demand, by noise in the band."""

    inputs: Inputs
    recorder: Recorder
    rng: random.Random
    state: BalancerState = field(default_factory=BalancerState)
    number: int = 0

    def advance(self) -> tuple[float, float]:
        """CPU seconds of the planner's thread for one step, and for handing it to the recorder."""
        self.number += 1
        now_s = NOW_S + 5.0 * self.number
        inputs = self.inputs
        before, started_s = self.state, time.thread_time()
        self.state, decision = step(before, inputs, now_s=now_s)
        stepped_s = time.thread_time()
        self.recorder.offer(Step(self.number, now_s, before, inputs, decision))
        offered_s = time.thread_time()
        plans = {name: one.plan for name, one in decision.services.items() if one.changed and one.plan is not None}
        self.inputs = replace(inputs, previous={**inputs.previous, **plans})
        return stepped_s - started_s, offered_s - stepped_s

    def without(self) -> float:
        """CPU seconds of the process for the next step, by itself; it changes nothing here."""
        started_s = time.process_time()
        step(self.state, self.inputs, now_s=NOW_S + 5.0 * (self.number + 1))
        return time.process_time() - started_s

    def recorded(self) -> float:
        """CPU seconds of the process for the next step, until it is on disk."""
        started_s = time.process_time()
        self.advance()
        self.written()
        return time.process_time() - started_s

    def pair(self, *, plain_first: bool) -> float:
        """What the recorder adds to the CPU time of the next step, in percent."""
        self.drift()
        before = self.without() if plain_first else 0.0
        # A second time the step finds what it reads in the caches, whoever is second.
        state, inputs, number = self.state, self.inputs, self.number
        with_s = self.recorded()
        if plain_first:
            return 100 * (with_s / before - 1)
        after = _Run(inputs, self.recorder, self.rng, state, number).without()
        return 100 * (with_s / after - 1)

    def drift(self) -> None:
        """Demand of the next step."""
        demand = {
            name: {locality: rps * self.rng.uniform(0.99, 1.01) for locality, rps in rates.items()}
            for name, rates in self.inputs.demand.items()
        }
        self.inputs = replace(self.inputs, demand=demand, changed=frozenset())

    def written(self) -> None:
        """Waits until the recorder has nothing left to do."""
        deadline_s = time.monotonic() + WAIT_S
        while not self.recorder.idle and time.monotonic() < deadline_s:
            time.sleep(0.005)


def rows(*, quick: bool) -> list[Row]:
    """All of them."""
    services, places, rounds = (50, 10, 4) if quick else (1000, 60, 10)
    progress(f"recorder: {services} services")
    directory = Path(tempfile.mkdtemp(prefix="gslb-recorder-"))
    recorder = Recorder(directory, Bounds(max_bytes=2**30), "bench")
    run = _Run(planet(1, services, places, places), recorder, random.Random(1))
    try:
        for _ in range(3):
            run.advance()
        run.written()
        what = f"recorder, {services} services {places}x{places}"
        found = _measured(run, what, rounds)
        pairs = [run.pair(plain_first=bool(number % 2)) for number in range(2 * rounds)]
        return [*found, median_row(f"{what}: CPU added to the process, in pairs", pairs, "%", GOAL_PERCENT)]
    finally:
        recorder.close()
        shutil.rmtree(directory)


def _measured(run: _Run, what: str, rounds: int) -> list[Row]:
    step_s, offer_s, own_s, kept, whole = [], [], [], [], []
    for _ in range(rounds):
        # After a gap the recorder takes down everything, as it does each five minutes; what follows is the rule.
        run.number += 1
        run.drift()
        size = run.recorder.size
        run.advance()
        run.written()
        whole.append((run.recorder.size - size) / 1e6)
        run.drift()
        size, used_s = run.recorder.size, time.process_time()
        stepped_s, offered_s = run.advance()
        run.written()
        own_s.append(time.process_time() - used_s - stepped_s - offered_s)
        step_s.append(stepped_s)
        offer_s.append(offered_s)
        kept.append((run.recorder.size - size) / 1e3)
    added = [100 * offered / stepped for offered, stepped in zip(offer_s, step_s, strict=True)]
    return [
        median_row(f"{what}: a step, every demand moved, CPU", [1000 * s for s in step_s], "ms"),
        median_row(f"{what}: planning time added", added, "%", GOAL_PERCENT),
        median_row(
            f"{what}: CPU of its own thread over the step's",
            [100 * own / stepped for own, stepped in zip(own_s, step_s, strict=True)],
            "%",
            GOAL_PERCENT,
        ),
        median_row(f"{what}: CPU of its own thread a step", [1000 * s for s in own_s], "ms"),
        median_row(f"{what}: disk a step", kept, "kB"),
        median_row(f"{what}: disk for everything, each five minutes", whole, "MB"),
    ]
