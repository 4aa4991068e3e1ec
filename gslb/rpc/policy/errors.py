"""Errors as load: what a task that answers errors fast must not win by being fast. PURE.

A choice by requests in flight sends the most to the task that is done the soonest, and nobody is sooner done than a task
that refuses everything (a sinkhole). So errors go on counting as requests in flight for a while:

    burden = CHARGE * errors * errors / (attempts + PRIOR)

where errors and attempts are those of the last seconds (each counts half after HALF_LIFE_S). A task whose every request
fails is charged CHARGE requests for each, so however fast it is, and however busy the others are, it gets few requests,
by which the client finds out when it is well. One of which a hundredth fails is charged next to nothing. When all tasks
fail alike, all are charged alike and nothing moves. Without new errors the burden is forgotten within some half-lives.

A refusal for want of room counts as REFUSAL of an error. In overload everybody refuses some, a little more or less by
chance, and with whole errors that chance decided who gets the next requests: goodput at ten times the capacity was 90 %
(+-2). With 0.3 of one it is 95 to 97 %, as good as if they did not count at all, and who refuses everything still gets little.
"""

import math
from dataclasses import dataclass
from typing import Final

from gslb.rpc.policy.failure import Failure

HALF_LIFE_S: Final = 2.0
# What an error counts, in requests, when every attempt is one.
CHARGE: Final = 10.0
# A lone error of a task that was seldom asked is no verdict.
PRIOR: Final = 2.0
# Less than this part of a request is none.
BURDEN_MIN: Final = 0.1
# What a refusal for want of room counts, in errors.
REFUSAL: Final = 0.3
# How often a burden that nobody adds to is looked at again.
LOOK_S: Final = 0.5

# Answers of the server's own that are no service. Connections that fail take a task out of the choice instead.
CHARGED: Final = frozenset({Failure.REFUSED, Failure.ERRED, Failure.SHED, Failure.DENIED})
_RATE: Final = math.log(2) / HALF_LIFE_S


def errors_in(failure: Failure | None, *, refused: bool) -> float:
    """How much of an error an attempt was that ended so. `refused`: well as the server is, it would not do it."""
    if failure not in CHARGED:
        return 0.0
    return REFUSAL if refused else 1.0


@dataclass(slots=True)
class ErrorLoad:
    """Attempts on one task and the errors among them, fading; times are monotonic seconds."""

    attempts: float = 0.0
    errors: float = 0.0
    at_s: float = 0.0

    def add(self, errors: float, now_s: float, *, attempts: float = 1.0) -> float:
        """Takes in one attempt that has ended, as so much of an error; the burden from now on, in requests."""
        if now_s > self.at_s:
            left = math.exp(-_RATE * (now_s - self.at_s))
            self.attempts *= left
            self.errors *= left
            self.at_s = now_s
        self.attempts += attempts
        self.errors += errors
        if not self.errors:
            return 0.0
        burden = CHARGE * self.errors * self.errors / (self.attempts + PRIOR)
        return burden if burden >= BURDEN_MIN else 0.0

    def look(self, now_s: float) -> float:
        """The burden after the time that has passed."""
        return self.add(0.0, now_s, attempts=0.0)
