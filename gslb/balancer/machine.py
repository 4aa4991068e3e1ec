"""What a task can serve when its machine is busy with other things: several tasks on it, or strangers. PURE.

A task's own CPU may be low while its machine has none left. Once the machine's CPU nears its limit, each task on it that
learns its capacity (mode `utilization`) counts for at most

    load + room / (tasks * cost)      while there is room: limit - CPU in use, shared by the service's tasks there
    load * limit / CPU in use         beyond the limit: all on the machine give up the same part

with cost in machines per rps. What is in force falls quickly and rises slowly, and ends when it does not bind any more.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# Of a machine's CPU so much is to be used at most; from NEAR_CPU on a machine is looked after.
LIMIT_CPU: Final = 0.9
NEAR_CPU: Final = 0.85
# What an agent may say of its machine: a counter that is off by a little more than all of it is still believed.
CPU_MAX: Final = 1.5
SMOOTHING_S: Final = 10.0
# The least that a task counts for, of what it serves on a machine of its own: or nobody would ever try again.
LEAST_FRACTION: Final = 0.1
PERIOD_S: Final = 5.0
GROWTH_MAX: Final = 1.1
FALL_MAX: Final = 0.5
HOLD_FRACTION: Final = 0.03


@dataclass(frozen=True, slots=True)
class Guard:
    """One task on its machine. `rps` is in force; infinite: the machine does not limit it."""

    cpu: float  # of the machine, 0..1, smoothed
    rps: float = math.inf


@dataclass(frozen=True, slots=True)
class Seen:
    """One step's look at a task and its machine."""

    machine_cpu: float  # 0..1 of the machine; 0 or NaN: unknown
    load_rps: float
    tasks: int  # of the service, on the machine
    cost: float  # of one rps, as a part of the machine
    task_rps: float  # what the task serves where nobody else is, > 0


def guarded(before: Guard | None, seen: Seen, passed_s: float) -> Guard | None:
    """The guard after `passed_s`; None: nothing is known, or the machine has been left with room enough."""
    if not 0 < seen.machine_cpu <= CPU_MAX or not 0 <= seen.load_rps < math.inf:
        return before
    cpu = seen.machine_cpu
    if before is not None:
        cpu = before.cpu + (1 - 0.5 ** (passed_s / SMOOTHING_S)) * (seen.machine_cpu - before.cpu)
    held = before.rps if before is not None else math.inf
    if cpu < NEAR_CPU and math.isinf(held):
        return Guard(cpu)
    aim = max(_aim(cpu, seen), LEAST_FRACTION * seen.task_rps)
    now_rps = min(held, seen.task_rps)
    if aim >= seen.task_rps and now_rps >= seen.task_rps * (1 - HOLD_FRACTION):
        return Guard(cpu)
    if abs(aim / now_rps - 1) <= HOLD_FRACTION:
        return Guard(cpu, now_rps)
    periods = passed_s / PERIOD_S
    return Guard(cpu, min(max(aim, now_rps * FALL_MAX**periods), now_rps * GROWTH_MAX**periods))


def _aim(cpu: float, seen: Seen) -> float:
    if cpu > LIMIT_CPU or not seen.cost > 0:
        return seen.load_rps * LIMIT_CPU / cpu
    return seen.load_rps + (LIMIT_CPU - cpu) / (max(seen.tasks, 1) * seen.cost)


def notes(guards: Mapping[str, Guard], machines: Mapping[str, str], most: int = 3) -> tuple[str, ...]:
    """One line for all tasks that their machines (by task) hold back."""
    held = sorted((guard.rps, name) for name, guard in guards.items() if guard.rps < math.inf)
    if not held:
        return ()
    some = "; ".join(
        f"{name} counts for {rps:.4g} rps, {machines.get(name) or 'its machine'} is {100 * guards[name].cpu:.0f} % busy"
        for rps, name in held[:most]
    )
    more = f"; and {len(held) - most} more" if len(held) > most else ""
    return (f"machine guard: {len(held)} tasks have less room than their own CPU says, {some}{more}",)
