"""What tasks' reports are worth: each is taken once, and those that cannot be true are set aside, with the reason. PURE.

A wrong report that says "cheap" attracts load, one that says "dear" only loses it. So reports that are too cheap are
doubted against tasks of other datacenters too, those that are too dear only against many tasks of their own job.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bns.model import HealthStatus
from gslb.balancer.inputs import TaskState
from gslb.model import limits

# An error counts as so many requests: or a datacenter that sheds looks efficient and attracts the world.
ERROR_COST: Final = 1.2
# A report older than this is not news.
REPORT_AGE_MAX_S: Final = 30.0
# CPU of a task that just started is not that of its requests.
SETTLE_S: Final = 10.0
# A task that uses sixteen times its declared cores: a broken counter, or cores declared for another machine.
CPU_MAX: Final = 16.0
# As good as no CPU, at a good part of what the task is taken to serve.
CPU_NONE: Final = 0.002
BUSY_FRACTION: Final = 0.25
PEERS_MIN: Final = 3
PEER_FACTOR: Final = 3.0  # within a job
CHEAP_FACTOR: Final = 4.0  # between jobs
# Errors beyond this part of all requests: such a report may not make a request look cheap.
CLEAN_ERRORS: Final = 0.05
STRIKES_SHOWN: Final = 3
STRIKES_MAX: Final = 6


@dataclass(frozen=True, slots=True)
class TaskMemory:
    """One task from step to step. `since_s`: when it became healthy, on the learner's clock; -inf: before it looked."""

    report: int
    values: tuple[float, float, float]  # ok rps, error rps, CPU
    health: HealthStatus
    since_s: float
    strikes: int = 0
    shown: str = ""  # why its reports are set aside, once that happened often enough
    fresh: bool = False  # this step's report is news


@dataclass(frozen=True, slots=True)
class Load:
    """One task's report, checked."""

    task: str
    ok_rps: float
    error_rps: float
    cpu: float

    @property
    def load_rps(self) -> float:
        """Requests, an error at its least price."""
        return self.ok_rps + ERROR_COST * self.error_rps

    @property
    def error_share(self) -> float:
        total = self.ok_rps + self.error_rps
        return self.error_rps / total if total > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Believed:
    """What a job's reports are judged by."""

    task_rps: float  # what one task serves, as far as is known
    idle: float  # CPU without load
    peer_cost: float | None  # CPU per rps that other jobs of the service suggest; None: nothing to compare with
    peer_idle: float = 0.0  # CPU without load of those


@dataclass(frozen=True, slots=True)
class Sifted:
    """Reports of one job: those to learn from, and why the others are not."""

    loads: tuple[Load, ...]
    doubts: Mapping[str, str]  # by task


def remembered(task: TaskState, before: TaskMemory | None, clock_s: float, *, first: bool) -> TaskMemory:
    """The task's memory with this step's report. `first`: the service is looked at for the first time, or opens just now.

    A report counts once; one that repeats the last one's values says nothing new (an agent that reconnects sends them).
    """
    values = (task.ok_rps, task.error_rps, task.cpu_utilization)
    if before is None:
        return TaskMemory(task.report, values, task.health, -math.inf if first else clock_s, fresh=_usable(task))
    if task.report == before.report and _same(values, before.values) and task.health is before.health:
        return before if not before.fresh else _stale(before)
    # Of an idle task the same numbers may well be new ones.
    other = not _same(values, before.values) or values[0] + values[1] == 0
    fresh = other and (not task.report or task.report != before.report) and _usable(task)
    return TaskMemory(
        task.report, values, task.health, _since(task, before, clock_s), before.strikes, before.shown, fresh
    )


def settled(memory: TaskMemory, clock_s: float) -> bool:
    """Whether its CPU is that of its requests."""
    return clock_s - memory.since_s >= SETTLE_S


def sift(loads: Sequence[Load], believed: Believed) -> Sifted:
    """Sets aside what cannot be true."""
    doubts = {load.task: why for load in loads if (why := _doubt(load, believed))}
    kept = [load for load in loads if load.task not in doubts]
    doubts.update(_among_peers([load for load in kept if load.load_rps > 0], believed.idle))
    return Sifted(tuple(load for load in kept if load.task not in doubts), doubts)


def judged(memory: TaskMemory, doubt: str) -> TaskMemory:
    """With one more report believed or doubted: a single odd one is passed over in silence."""
    strikes = min(memory.strikes + 1, STRIKES_MAX) if doubt else max(memory.strikes - 1, 0)
    shown = memory.shown
    if doubt and (shown or strikes >= STRIKES_SHOWN):
        shown = doubt
    if not strikes:
        shown = ""
    if strikes == memory.strikes and shown == memory.shown:
        return memory
    return TaskMemory(memory.report, memory.values, memory.health, memory.since_s, strikes, shown, memory.fresh)


def notes(memories: Mapping[str, TaskMemory], most: int = 5) -> tuple[str, ...]:
    """One line for all tasks whose reports are set aside."""
    odd = sorted(name for name, memory in memories.items() if memory.shown)
    if not odd:
        return ()
    some = "; ".join(f"{name} {memories[name].shown}" for name in odd[:most])
    more = f"; and {len(odd) - most} more" if len(odd) > most else ""
    return (f"reports set aside: {len(odd)} tasks do not count for capacity, {some}{more}",)


def _usable(task: TaskState) -> bool:
    """Whether the report is about a task that serves, and recent."""
    serves = task.health in {HealthStatus.HEALTHY, HealthStatus.DRAINING}
    return serves and task.report_age_s <= REPORT_AGE_MAX_S


def _since(task: TaskState, before: TaskMemory, clock_s: float) -> float:
    """When the task became healthy; the end of a drain or of lame duck is no restart."""
    if task.health is HealthStatus.UNKNOWN and before.health is not HealthStatus.UNKNOWN:
        return clock_s
    if task.health is not HealthStatus.HEALTHY or before.health in {HealthStatus.HEALTHY, HealthStatus.DRAINING}:
        return before.since_s
    # At first every task is unknown until its agent has been heard.
    return before.since_s if before.health is HealthStatus.UNKNOWN and before.since_s == -math.inf else clock_s


def _same(values: tuple[float, float, float], others: tuple[float, float, float]) -> bool:
    return values == others or all(
        a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(values, others, strict=True)
    )


def _stale(memory: TaskMemory) -> TaskMemory:
    return TaskMemory(memory.report, memory.values, memory.health, memory.since_s, memory.strikes, memory.shown)


def _doubt(load: Load, believed: Believed) -> str:
    """What is wrong with this report by itself; empty: nothing."""
    rates = (load.ok_rps, load.error_rps)
    if not all(0 <= rate <= limits.RATE_MAX_RPS for rate in rates):
        return f"reports {rates[0]:g} and {rates[1]:g} rps, which are no rates"
    busy = load.load_rps >= BUSY_FRACTION * believed.task_rps
    if math.isnan(load.cpu):
        return f"reports no CPU at {load.load_rps:.4g} rps" if busy else ""
    if not 0 <= load.cpu <= CPU_MAX:
        return f"reports {load.cpu:g} times its CPU"
    if busy and load.cpu <= CPU_NONE:
        return f"reports {100 * load.cpu:.2g} % CPU at {load.load_rps:.4g} rps"
    if busy and believed.peer_cost is not None and load.error_share <= CLEAN_ERRORS:
        # Were true reports set aside for a wrong notion of what idles here (something else ran for a while), nothing would
        # ever put that right.
        cost = (load.cpu - min(believed.idle, believed.peer_idle)) / load.load_rps
        if cost * CHEAP_FACTOR < believed.peer_cost:
            return f"reports {100 * load.cpu:.3g} % CPU at {load.load_rps:.4g} rps, far less than other datacenters"
    return ""


def _among_peers(loads: Iterable[Load], idle: float) -> dict[str, str]:
    """Tasks of one job whose CPU per request is far from what most of them have."""
    costs = {load.task: max(load.cpu - idle, 0.0) / load.load_rps for load in loads if not math.isnan(load.cpu)}
    if len(costs) < PEERS_MIN:
        return {}
    middle = statistics.median(costs.values())
    if middle <= 0:
        return {}
    return {
        task: f"uses {cost / middle:.2g} times the CPU per request of its peers"
        for task, cost in costs.items()
        if not middle / PEER_FACTOR <= cost <= middle * PEER_FACTOR
    }
