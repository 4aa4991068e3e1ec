"""Hold-down: a task whose health changes its mind again and again comes back later each time. PURE.

As routers damp routes that flap (RFC 2439): each time a healthy task falls ill adds 1 to its penalty, and penalties halve
every minute. A task leaves at once, always. One that fell ill twice within a minute counts again only when its
penalty is down to that of a single fall; the more often it fell, the longer that takes, five minutes at most. One restart
therefore delays nothing. Drains and lame duck are intent and no flaps.

Where the others cannot carry the demand, tasks in hold-down count all the same (`gslb.balancer.capacity`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bns.model import HealthStatus
from gslb.balancer.inputs import TaskState

HALF_LIFE_S: Final = 60.0
# A penalty of this much holds a task down, until it is below the other.
SUPPRESS: Final = 1.4
REUSE: Final = 1.0
HOLD_MAX_S: Final = 300.0
PENALTY_MAX: Final = REUSE * 2 ** (HOLD_MAX_S / HALF_LIFE_S)
FORGOTTEN: Final = 0.1
_ILL: Final = frozenset({HealthStatus.UNHEALTHY, HealthStatus.TIMEOUT})
# Tasks that a note names.
NAMED_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Flap:
    """One task that fell ill lately."""

    penalty: float  # at `at_s`
    at_s: float
    held: bool = False

    def at(self, now_s: float) -> "Flap":
        """The same, later; a clock that went back begins a new count."""
        penalty = self.penalty * 0.5 ** (max(0.0, now_s - self.at_s) / HALF_LIFE_S)
        return Flap(penalty, now_s, self.held and penalty > REUSE)

    def fallen(self) -> "Flap":
        """With one more fall, now."""
        penalty = min(self.penalty + 1.0, PENALTY_MAX)
        return Flap(penalty, self.at_s, self.held or penalty >= SUPPRESS)

    @property
    def wait_s(self) -> float:
        """How long it is still held down."""
        return HALF_LIFE_S * max(0.0, math.log2(self.penalty / REUSE)) if self.held else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Flaps:
    """The tasks of one service that fell ill lately. `due_s`: when the first of those held down counts again."""

    tasks: Mapping[str, Flap] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    due_s: float = math.inf
    notes: tuple[str, ...] = ()


NO_FLAPS: Final = Flaps()


def follow(before: Flaps, seen: Sequence[TaskState], tasks: Sequence[TaskState], now_s: float) -> Flaps:
    """What is known after `tasks`; `seen` are those of the step before. O(tasks), nothing while none is ill."""
    fallen = _fallen(seen, tasks)
    if not before.tasks and not fallen:
        return NO_FLAPS
    flaps = {name: aged for name, flap in before.tasks.items() if (aged := flap.at(now_s)).penalty >= FORGOTTEN}
    for name in fallen:
        flaps[name] = flaps.get(name, Flap(0.0, now_s)).fallen()
    present = {task.name for task in tasks}
    flaps = {name: flap for name, flap in flaps.items() if name in present}
    held = {name: flap for name, flap in flaps.items() if flap.held}
    # A hair later than the moment itself, or rounding would find the penalty just above its bound.
    due_s = now_s + min((flap.wait_s for flap in held.values()), default=math.inf) + 1e-3
    return Flaps(flaps, frozenset(held), due_s, _notes(held))


def _fallen(seen: Sequence[TaskState], tasks: Sequence[TaskState]) -> Iterable[str]:
    """Tasks that are ill and were healthy."""
    ill = [task.name for task in tasks if task.health in _ILL]
    if not ill or seen is tasks:
        return ()
    well = {task.name for task in seen if task.health is HealthStatus.HEALTHY}
    return [name for name in ill if name in well]


def _notes(held: Mapping[str, Flap]) -> tuple[str, ...]:
    if not held:
        return ()
    worst = sorted(held, key=lambda name: (-held[name].penalty, name))
    more = f" and {len(worst) - NAMED_MAX} more" if len(worst) > NAMED_MAX else ""
    note = (
        f"hold-down: {len(worst)} tasks fell ill again and again and do not count for {held[worst[0]].wait_s:.0f} s "
        f"after the last fall: {', '.join(worst[:NAMED_MAX])}{more}"
    )
    return (note,)
