"""How much of its share a datacenter keeps, by what one client sees of it: lost at once, back little by little. PURE.

The control plane says the same a moment later and better; this is for the moment, and for when it is dead. A datacenter
of which at least half of the tasks answer is there: a restart of a few tasks moves nothing between datacenters. Below
that, it keeps what those that answer have room for; the rest goes by the plan's contingency, as if that part of it were
lost. It falls at once and rises by a tenth of its share a second, so that a datacenter that answers again is not met by
everybody in its first second, with cold caches and half of its tasks still away. To take a connection is not to answer:
until one of its tasks has answered a request it gets a twentieth, for a server that starts may let requests wait for
seconds; but for ten seconds at most, for where nobody asks nobody answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gslb.model import limits

# How much more than planned the tasks of a datacenter can take, when the plan does not say.
ROOM_DEFAULT: Final = 1.0 / limits.MAX_UTILIZATION_DEFAULT
# A rise below this is made at once.
RISE_MIN: Final = 0.01


class Sight(NamedTuple):
    """What a client sees of one datacenter. `room`: planned capacity over planned load, >= 1."""

    serving: int  # tasks that may get requests, as the control plane says
    answering: int  # those of them that answer
    room: float = ROOM_DEFAULT
    proved: bool = True  # whether one of those who answer has answered a request since it came back

    @property
    def worth(self) -> float:
        """The part of its share that those who answer can serve, 0..1."""
        if not self.answering:
            return 0.0
        if 2 * self.answering >= self.serving:
            return 1.0
        return min(1.0, self.answering / self.serving * max(1.0, self.room))


@dataclass(slots=True)
class Presence:
    """What is kept now by datacenters that keep less than their whole share; times are monotonic seconds."""

    kept: dict[str, float] = field(default_factory=dict)
    looked_s: float = 0.0
    climbing: Mapping[str, float] = field(default_factory=dict)  # worth more than they keep, since when: they rise

    @property
    def rising(self) -> bool:
        """Whether to look again soon."""
        return bool(self.climbing)

    def look(self, sights: Mapping[str, Sight], now_s: float) -> Mapping[str, float]:
        """Takes in what is seen now; what is kept by the datacenters in `sights`.

        One that the control plane has out keeps what it had, for when it is in again: a control plane that was away
        itself may give back at once what it never knew to be gone. Time counts only while a datacenter is worth more.
        """
        step = max(0.0, now_s - self.looked_s) * limits.RETURN_FRACTION_PER_S
        self.looked_s = now_s
        kept = {datacenter: part for datacenter, part in self.kept.items() if datacenter not in sights}
        climbing: dict[str, float] = {}
        for datacenter, sight in sights.items():
            before = self.kept.get(datacenter, 1.0)
            since_s = self.climbing.get(datacenter, now_s)
            proved = sight.proved or now_s - since_s >= limits.RETURN_UNPROVED_S
            now = min(sight.worth, _risen(before, step if datacenter in self.climbing else 0.0, proved=proved))
            if now < sight.worth:
                climbing[datacenter] = since_s
            if now < 1.0 - RISE_MIN:
                kept[datacenter] = now
        self.kept, self.climbing = kept, climbing
        return {datacenter: kept[datacenter] for datacenter in sights if datacenter in kept}


def _risen(before: float, step: float, *, proved: bool) -> float:
    """What a datacenter may keep after `step`."""
    return before + step if proved else max(before, min(before + step, limits.RETURN_UNPROVED))
