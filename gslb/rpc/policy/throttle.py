"""A client that holds back what would be refused: adaptive throttling by class of criticality. PURE.

A refusal costs the server too. At ten times the load, with refusals at a tenth of a request's cost, a server does nothing
but refuse. So each client sends a fraction f of its calls and ends the others itself. After each window, with x the part
of what it sent that was refused for overload:

    f = min(1, f * K * (1 - x))

which rests where x = 1 - 1/K: the service is offered K times what it accepts. That is the rule of the SRE book
(chapter 21), p = (requests - K * accepts) / requests, solved for its own fixed point; it needs no two minutes of history,
so that it falls within one window and is back within some.

K: with a refusal at the cost rho of a request, goodput = C / (1 + rho * (K - 1)). At rho = 0.1 the book's K = 2 leaves
91 %, 1.5 leaves 95 %, and 1.1 (THROTTLE_EXCESS), 99 %. A smaller K finds out later that there is room again: f grows
K-fold a window. So with each window in a row in which hardly anything was refused the factor is squared, up to THROTTLE_RETURN:
one such window is chance, as a client sends few calls in one, and four are not. From a tenth to all of its calls takes
five windows.

Each class has its own f, as servers refuse the least critical first. Which calls go is not drawn anew: it is those of the
lowest ranks (`gslb.rpc.policy.rank`), which servers refuse last. And when nothing went out for a window, one call goes
whatever its rank: else a client all of whose calls have one high rank would never learn that it is over. That such a call is
refused says nothing about those of lower ranks, and does not count.
"""

from dataclasses import dataclass, field
from typing import Final

from gslb.model import limits
from gslb.model.criticality import Criticality

# A window lasts until answers to what was sent in it can be there, and never longer than this.
WINDOW_MAX_S: Final = 5.0
# Fewer refusals than this part are those of a task that was full for a moment.
NOTICED: Final = 0.05
# Beyond this many clean windows the return is at its fastest.
_CLEAN_MOST: Final = 6
# Weight of the newest answer in the smoothed time that an answer takes.
_SMOOTHING: Final = 0.1
# A client that sent next to nothing knows next to nothing: so many calls are thought of as accepted, beside its own.
_PRIOR: Final = 0.5


@dataclass(slots=True)
class _Class:
    """What is known of one class of criticality. Answers count in the window in which their call was sent."""

    fraction: float = 1.0
    since_s: float | None = None  # when the window began
    accepted: int = 0
    refused: int = 0
    sent_s: float | None = None  # the last call that went out
    clean: int = 0  # windows in a row with hardly a refusal
    held_back: int = 0  # since the channel was made

    def turn(self, now_s: float, excess: float) -> None:
        """Ends the window: what was seen in it sets the fraction."""
        known = self.accepted + self.refused
        x = self.refused / (known + _PRIOR)
        self.clean = self.clean + 1 if x <= NOTICED else 0
        times = min(limits.THROTTLE_RETURN, excess ** (2.0 ** min(self.clean, _CLEAN_MOST)))
        self.fraction = min(1.0, max(limits.THROTTLE_FLOOR, self.fraction * times * (1.0 - x)))
        self.since_s, self.accepted, self.refused = now_s, 0, 0


@dataclass(slots=True)
class Throttle:
    """One client's towards one service. Guarded by the channel's lock; times are monotonic seconds. `excess`: K."""

    excess: float = limits.THROTTLE_EXCESS
    _classes: tuple[_Class, ...] = field(default_factory=lambda: tuple(_Class() for _ in Criticality))
    answer_s: float = 0.0  # smoothed: how long an accepted call takes
    whole: bool = True  # every class sends all of its calls

    def admit(self, criticality: Criticality, rank: float, u: float, now_s: float) -> bool:
        """Whether the call may go out. `rank`: of its trace id; `u`: drawn uniformly from [0, 1)."""
        one = self._classes[criticality]
        if one.since_s is None:
            one.since_s = now_s
        elif now_s - one.since_s >= limits.THROTTLE_WINDOW_S:
            self._perhaps_turn(one, now_s - one.since_s, now_s)
        if rank >= one.fraction and not self._quiet(one, u, now_s):
            one.held_back += 1
            return False
        one.sent_s = now_s
        return True

    def ended(self, criticality: Criticality, sent_s: float, now_s: float, *, refused: bool, rank: float = 0.0) -> None:
        """An attempt that went out at `sent_s` is over. `refused`: for overload or quota; other failures are none.

        `rank`: as it was admitted with.
        """
        one = self._classes[criticality]
        if not refused:
            self.answer_s += _SMOOTHING * (max(0.0, now_s - sent_s) - self.answer_s)
        if one.since_s is None or sent_s < one.since_s:
            # Sent under an older fraction: it would be counted twice.
            return
        if not refused:
            one.accepted += 1
        elif rank < one.fraction:
            one.refused += 1

    @property
    def window_s(self) -> float:
        """Refusals come at once and answers later: a shorter window would see only refusals."""
        return min(WINDOW_MAX_S, max(limits.THROTTLE_WINDOW_S, 2.0 * self.answer_s))

    def fraction(self, criticality: Criticality) -> float:
        """The part of its calls that a class sends now."""
        return self._classes[criticality].fraction

    def held_back(self) -> tuple[int, ...]:
        """Calls that were not sent, by criticality, since the channel was made."""
        return tuple(one.held_back for one in self._classes)

    def _perhaps_turn(self, one: _Class, lasted_s: float, now_s: float) -> None:
        """Ends a window that has lasted for long enough, if anything was seen in it."""
        if lasted_s >= self.window_s and one.accepted + one.refused:
            one.turn(now_s, self.excess)
            self.whole = all(other.fraction >= 1.0 for other in self._classes)

    def _quiet(self, one: _Class, u: float, now_s: float) -> bool:
        """Whether it is time to ask; drawn, so that clients do not all ask in one moment."""
        return one.sent_s is None or now_s - one.sent_s >= self.window_s * (0.5 + u)
