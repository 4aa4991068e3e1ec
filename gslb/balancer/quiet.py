"""Whether a service can rest: nothing that its plan depends on is new, and time alone changes nothing yet. PURE."""

import math
from typing import Final

from gslb.balancer.bandwidth import NO_BANDWIDTH
from gslb.balancer.case import Moment
from gslb.balancer.inputs import TaskState
from gslb.balancer.state import ServiceMemory, Solved
from gslb.model import limits
from gslb.model.resources import Service

# Stickiness below this is none; it gets there in ten minutes.
STICKINESS_MIN_MS: Final = 0.02
# A move that stickiness forbade is tried again when stickiness is down to this fraction of what it would win.
GAIN_FRACTION: Final = 0.7
# So much before that moment the service is looked at more closely.
QUIET_MARGIN_S: Final = 0.01


def rests(memory: ServiceMemory, service: Service, moment: Moment) -> bool:
    """Whether nothing is another object than in the last step; of 1,000 services 999 rest most of the time."""
    inputs, name = moment.inputs, service.meta.name
    return (
        moment.now_s < memory.quiet_until_s
        and memory.service is service
        and memory.compared is moment.published(name)
        and memory.demand_seen is inputs.demand.get(name)
        and (memory.tasks is inputs.tasks.get(name, ()) or (inputs.changed is not None and name not in inputs.changed))
        and memory.network is moment.network
        and memory.coverage is moment.coverage
        and memory.budgets is moment.budgets
        and memory.bandwidth is moment.bandwidths.get(name, NO_BANDWIDTH)
        and not moment.hold
    )


def quiet_until_s(memory: ServiceMemory) -> float:
    """Before then time alone changes nothing; a little early."""
    solved, decision = memory.solved, memory.decision
    if solved is None or decision.held or decision.recomputed or solved.held.ramping:
        return -math.inf
    if solved.gain_ms <= STICKINESS_MIN_MS:
        return memory.flaps.due_s
    due_ms = max(GAIN_FRACTION * solved.gain_ms, STICKINESS_MIN_MS)
    half_lives = max(0.0, math.log2(limits.STICKINESS_MS / due_ms))
    due_s = solved.stickiness_since_s + half_lives * limits.STICKINESS_HALF_LIFE_S - QUIET_MARGIN_S
    return min(memory.flaps.due_s, due_s)


def stickiness_ms(since_s: float, now_s: float) -> float:
    """mu: full when a move was forced, half each half-life, nothing in the end."""
    mu = limits.STICKINESS_MS * 0.5 ** (max(0.0, now_s - since_s) / limits.STICKINESS_HALF_LIFE_S)
    return mu if mu >= STICKINESS_MIN_MS else 0.0


def untouched(memory: ServiceMemory, service: Service, tasks: tuple[TaskState, ...], moment: Moment) -> bool:
    """Whether nothing that this service's plan depends on is another object than in the last step."""
    return (
        memory.service is service
        and memory.tasks is tasks
        and memory.network is moment.network
        and memory.coverage is moment.coverage
        and memory.budgets is moment.budgets
        and memory.bandwidth is moment.bandwidth_of(service.name)
        and memory.demand_seen is moment.inputs.demand.get(service.name)
        and not memory.decision.held
        and not moment.hold
        and memory.solved is not None
        and not memory.solved.held.ramping
        and moment.now_s < memory.flaps.due_s
        and not gain_is_due(memory.solved, moment.now_s)
    )


def gain_is_due(solved: Solved, now_s: float) -> bool:
    """Whether stickiness forbade a move that would pay now, or would never decay, for the clock was put back."""
    since_s = solved.stickiness_since_s
    return solved.gain_ms > STICKINESS_MIN_MS and (
        since_s > now_s or stickiness_ms(since_s, now_s) <= GAIN_FRACTION * solved.gain_ms
    )
