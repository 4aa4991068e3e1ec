"""Which tasks of vanished agents may be removed, and when: the decision alone. PURE.

An agent that is away may come back, and its tasks may serve well without it; so its tasks stay for `REAP_AFTER_S`, and
only time counts in which this process could see etcd. A mass disappearance is more likely our mistake than theirs:
a job loses at most a fraction of its names in a window of time, and never the last one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from bns.limits import REAP_AFTER_S, REMOVAL_BUDGET_FRACTION, REMOVAL_BUDGET_WINDOW_S
from bns.view import AgentKey, TaskIndex

# A process that was stopped for an hour has not watched for an hour.
OBSERVED_STEP_MAX_S = 30.0


@dataclass(frozen=True, slots=True)
class ReapPolicy:
    """The rules; the defaults are those of `bns.limits`."""

    after_s: float = REAP_AFTER_S
    budget_fraction: float = REMOVAL_BUDGET_FRACTION
    window_s: float = REMOVAL_BUDGET_WINDOW_S


@dataclass(frozen=True, slots=True)
class Removal:
    """One name of `job` was removed."""

    at_s: float
    job: str


@dataclass(frozen=True, slots=True)
class ReaperState:
    """What was observed so far. `observed_at_s` None: the last look did not reach etcd."""

    observed_at_s: float | None = None
    absent_s: Mapping[AgentKey, float] = field(default_factory=dict)
    removals: tuple[Removal, ...] = ()


@dataclass(frozen=True, slots=True)
class ReapDecision:
    """`remove`: names, the longest abandoned first. `held`: job -> how many more are due and may not go now."""

    remove: tuple[str, ...] = ()
    held: Mapping[str, int] = field(default_factory=dict)


def observe(state: ReaperState, absent: AbstractSet[AgentKey] | None, now_s: float) -> ReaperState:
    """One look: the agents that hold tasks and are not live; None when etcd could not be asked."""
    if absent is None:
        return replace(state, observed_at_s=None)
    step_s = 0.0
    if state.observed_at_s is not None:
        step_s = min(max(now_s - state.observed_at_s, 0.0), OBSERVED_STEP_MAX_S)
    absent_s = {agent: state.absent_s[agent] + step_s if agent in state.absent_s else 0.0 for agent in absent}
    return replace(state, observed_at_s=now_s, absent_s=absent_s)


def decide(state: ReaperState, tasks: TaskIndex, now_s: float, policy: ReapPolicy) -> ReapDecision:
    """What may be removed now."""
    due = [
        (-absent_s, name)
        for agent, absent_s in state.absent_s.items()
        if absent_s >= policy.after_s
        for name in tasks.owned_by(*agent)
    ]
    recent = Counter(removal.job for removal in state.removals if now_s - removal.at_s < policy.window_s)
    allowed: dict[str, int] = {}
    remove: list[str] = []
    held: Counter[str] = Counter()
    for _, name in sorted(due):
        job = name.rpartition("/")[0]
        if job not in allowed:
            allowed[job] = _allowance(len(tasks.job(job)), recent[job], policy)
        if allowed[job] > 0:
            allowed[job] -= 1
            remove.append(name)
        else:
            held[job] += 1
    return ReapDecision(tuple(remove), dict(held))


def _allowance(names: int, recently_removed: int, policy: ReapPolicy) -> int:
    """How many of the `names` that a job has now may go; some went within the window already."""
    budget = int((names + recently_removed) * policy.budget_fraction) - recently_removed
    return max(0, min(budget, names - 1))


def note_removed(state: ReaperState, names: Sequence[str], now_s: float, policy: ReapPolicy) -> ReaperState:
    """These were removed now; what left the window is forgotten."""
    kept = [removal for removal in state.removals if now_s - removal.at_s < policy.window_s]
    kept += [Removal(now_s, name.rpartition("/")[0]) for name in names]
    return replace(state, removals=tuple(kept))
