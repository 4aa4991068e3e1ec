"""Runs recorded steps again and says whether they decide what was decided. PURE."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from gslb.balancer.state import BalancerState, Decision, ServiceDecision
from gslb.balancer.step import step
from gslb.recorder.codec import pack, unpack
from gslb.recorder.errors import RecordingError
from gslb.recorder.frames import Decoder, Recorded
from gslb.recorder.segment import SegmentRecord

DIFFERENCES_MAX: Final = 100
# A decision with its bytes, without its plan, and the plan's.
_Packed = tuple[ServiceDecision, tuple[bytes, bytes | None]]


@dataclass(frozen=True, slots=True)
class Difference:
    """What a step decides otherwise when it is run again. `service` empty: what concerns no single one."""

    at_s: float
    service: str
    field: str
    recorded: str
    again: str


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """The last step that was run again. `state` is the one before it, `after` the one that it made."""

    recorded: Recorded
    state: BalancerState
    after: BalancerState
    decision: Decision
    since_s: float  # of the first step of the recording
    steps: int  # that were run again
    differences: tuple[Difference, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether every step decided, bit for bit, what is recorded."""
        return not self.differences


@dataclass(slots=True)
class Player:
    """Runs the steps of one segment again, one after the other."""

    _decoder: Decoder = field(default_factory=Decoder)
    _state: BalancerState | None = None
    _since_s: float = 0.0
    _steps: int = 0
    _number: int = 0
    _held: dict[str, _Packed] = field(default_factory=dict)  # as it was run again
    _differences: list[Difference] = field(default_factory=list)

    def play(self, data: bytes) -> Replayed:
        """Runs the next step. Raises RecordingError."""
        recorded = self._decoder.decode(data)
        if self._steps and recorded.number != self._number + 1:
            raise RecordingError(f"step {self._number + 1} is missing in the recording: {recorded.number} follows")
        self._number = recorded.number
        state = recorded.state or self._state
        if state is None:
            raise RecordingError("a recording begins without a state")
        if not self._steps:
            self._since_s = recorded.at_s
        after, decision = step(state, recorded.inputs, now_s=recorded.at_s)
        self._state = after
        self._steps += 1
        self._compare(recorded, decision)
        return Replayed(
            recorded, state, after, decision, self._since_s, self._steps, tuple(self._differences[:DIFFERENCES_MAX])
        )

    def _compare(self, recorded: Recorded, decision: Decision) -> None:
        if self._differences:
            # What follows a difference differs because of it.
            return
        self._held = {name: self._packed(name, one) for name, one in decision.services.items()}
        for name in sorted(recorded.decided.keys() | self._held.keys()):
            now = self._held.get(name)
            if now is None or name not in recorded.decided:
                words = ("decided", "nothing was decided") if now is None else ("nothing was decided", "decided")
                self._differences.append(Difference(recorded.at_s, name, "service", *words))
            elif (recorded.decided[name], recorded.plans.get(name)) != now[1]:
                self._differences += _between(recorded.at_s, name, recorded.service(name), now[0])
        rest = pack(replace(decision, services={}))
        if rest != recorded.rest:
            self._differences += _between(recorded.at_s, "", unpack(Decision, recorded.rest), unpack(Decision, rest))

    def _packed(self, name: str, decision: ServiceDecision) -> _Packed:
        held = self._held.get(name)
        if held is not None and held[0] is decision:
            return held
        plan = None if decision.plan is None else pack(decision.plan)
        return decision, (pack(replace(decision, plan=None)), plan)


def replay(records: Iterable[SegmentRecord], until_s: float) -> Replayed:
    """The last step at or before `until_s`, after all before it. Raises RecordingError when there is none."""
    player, last = Player(), None
    for record in records:
        if record.at_s > until_s:
            break
        last = player.play(record.data)
    if last is None:
        raise RecordingError("no step is recorded at or before that time")
    return last


def _between(at_s: float, service: str, then: object, now: object) -> list[Difference]:
    """The fields in which two values of the same type differ, those of a plan one by one."""
    found = []
    for path, old, new in _leaves("", then, now):
        if pack(old) != pack(new):
            found.append(Difference(at_s, service, path, _shown(old), _shown(new)))
    return found[:DIFFERENCES_MAX]


def _leaves(path: str, then: object, now: object) -> Iterable[tuple[str, object, object]]:
    """Pairs of values at the same place, mappings and dataclasses opened."""
    old, new = _entries(then), _entries(now)
    if old is None or new is None:
        yield path, then, now
        return
    for name in dict.fromkeys([*old, *new]):
        yield from _leaves(f"{path}.{name}".lstrip("."), old.get(name), new.get(name))


def _entries(value: object) -> Mapping[str, object] | None:
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    names = getattr(type(value), "__dataclass_fields__", None)
    return None if names is None else {name: getattr(value, name) for name in names}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."
