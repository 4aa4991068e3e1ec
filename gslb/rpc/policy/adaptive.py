"""Our own rule: the least used part of its room, among the tasks last heard of. PURE.

Prequal (`gslb.rpc.policy.prequal`) asks for requests in flight and latency, and latency says late and with much noise that
a machine has become busy with other things: requests differ by more than servers do. Here a server says how many requests
it can have under way before they slow one another (`gslb.rpc.policy.room`), and the task with the least

    (in flight there + ours since + errors) / room

gets the request, among the FRESHEST tasks heard of within AGE_S. Few of them on purpose: an older word is a worse one, and
clients that all knew everybody would all choose alike. Probes are Prequal's, as many for a request and drawn at random;
what comes with answers is heard too. A task is never taken to have less in flight than we have there ourselves, nor more
room than a multiple of the mean, so that one that lies gains little.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Final, Generic

from typing_extensions import override

from gslb.rpc.policy.choice import Report, Rng, Rule
from gslb.rpc.policy.p2c import Group, M, group_of
from gslb.rpc.policy.suspicion import sample

PROBES: Final = 3
AGE_S: Final = 1.0
FRESHEST: Final = 5
# No room is believed to be more than this many times the mean.
ROOM_SPREAD: Final = 4.0
_SMOOTHING: Final = 0.02


@dataclass(slots=True, eq=False)
class _Heard(Generic[M]):
    member: M
    in_flight: float
    per_request: float  # what one request takes of its room
    at_s: float


class Adaptive(Rule[M]):
    """See the module."""

    listens: ClassVar[bool] = True
    asks: ClassVar[bool] = True

    def __init__(self, probes: int = PROBES, freshest: int = FRESHEST) -> None:
        self._probes = probes
        self._freshest = freshest
        self._group: Group[M] = Group("", ())
        self._known: frozenset[M] = frozenset()
        self._heard: dict[M, _Heard[M]] = {}  # the latest last
        self._mean_room = 0.0

    @override
    def assign(self, members: Sequence[M], now_s: float) -> None:
        del now_s
        self._group = group_of("", members)
        self._known = frozenset(members)
        self._heard = {member: heard for member, heard in self._heard.items() if member in self._known}

    @override
    def pick(self, rng: Rng, now_s: float, key: str = "") -> M:
        del key
        best, least = None, math.inf
        oldest_s, count = now_s - AGE_S, 0
        for heard in islice(reversed(self._heard.values()), self._freshest):
            if heard.at_s < oldest_s:
                break
            count += 1
            used = (heard.in_flight + heard.member.burden) * heard.per_request
            if used < least:
                best, least = heard, used
        if best is None or (count < 2 < len(self._known)):
            # Too little is known to choose by it: a client that asks once in a while chooses by its own requests.
            return self._group.pick(rng)
        best.in_flight += 1.0
        return best.member

    @override
    def probes(self, rng: Rng, now_s: float) -> Sequence[M]:
        del now_s
        return sample(self._group.members, rng, self._probes)

    @override
    def reported(self, member: M, report: Report, now_s: float, *, probe: bool = False) -> None:
        if member not in self._known or not (report.in_flight >= 0.0 and math.isfinite(report.in_flight)):
            return
        room = report.room if report.room > 0.0 and math.isfinite(report.room) else self._mean_room or 1.0
        if self._mean_room:
            room = min(room, ROOM_SPREAD * self._mean_room)
            self._mean_room += _SMOOTHING * (room - self._mean_room)
        else:
            self._mean_room = room
        # One more for the request to be placed: of two idle tasks the one with more room is better.
        in_flight = max(report.in_flight, float(member.in_flight)) + 1.0
        self._heard.pop(member, None)
        self._heard[member] = _Heard(member, in_flight, 1.0 / (room * member.weight), now_s)

    @override
    def knows(self, member: M, now_s: float) -> Mapping[str, float]:
        heard = self._heard.get(member)
        if heard is None:
            return {}
        room = 1.0 / (heard.per_request * member.weight)
        return {"in_flight": heard.in_flight - 1.0, "room": room, "age_s": now_s - heard.at_s}
