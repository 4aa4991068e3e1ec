"""Datacenters that do not answer, judged by the frontend itself while no control plane can. PURE.

While a control plane feeds the frontend, health is its business. When it is gone, a datacenter may go with it, and answers
that lead there are worth nothing until somebody says so. A datacenter is taken to be lost when it answered before, when none
of several of its endpoints takes a TCP connection in two rounds on end, and when another datacenter does answer: a
frontend that reaches nobody doubts itself and changes nothing (Facebook, 2021). It is back after several good rounds; the
caches of resolvers, which end one by one over a TTL, make its return a gradual one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gslb.steer.view import ServiceView

LOST_AFTER_ROUNDS: Final = 2
BACK_AFTER_ROUNDS: Final = 23


class Outcome(NamedTuple):
    """One round of one datacenter: endpoints that took a connection, and that did not."""

    answered: int
    silent: int


@dataclass(frozen=True, slots=True)
class Absence:
    """What is known after some rounds. `reached`: datacenters that ever answered; others are none of our business."""

    reached: frozenset[str] = frozenset()
    silent_rounds: Mapping[str, int] = field(default_factory=dict)
    good_rounds: Mapping[str, int] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()

    @property
    def suspected(self) -> bool:
        """Whether a datacenter answers no more that is not taken to be lost yet."""
        return not self.silent_rounds.keys() <= self.lost

    def baseline(self, outcomes: Mapping[str, Outcome]) -> "Absence":
        """After a round with a control plane: who can be reached from here at all, and nobody is lost."""
        return Absence(self.reached | {name for name, outcome in outcomes.items() if outcome.answered})

    def after(self, outcomes: Mapping[str, Outcome]) -> "Absence":
        """After a round without a control plane."""
        answering = {name for name, outcome in outcomes.items() if outcome.answered}
        if not answering:
            return self
        silent = {
            name: self.silent_rounds.get(name, 0) + 1
            for name, outcome in outcomes.items()
            if outcome.silent and not outcome.answered and name in self.reached
        }
        good = {name: self.good_rounds.get(name, 0) + 1 for name in answering & self.lost}
        gone = {name for name, rounds in silent.items() if rounds >= LOST_AFTER_ROUNDS}
        back = {name for name, rounds in good.items() if rounds >= BACK_AFTER_ROUNDS}
        return Absence(self.reached | answering, silent, good, frozenset((self.lost | gone) - back))


def without(services: Mapping[str, ServiceView], lost: frozenset[str]) -> Mapping[str, ServiceView]:
    """The services as if the endpoints in `lost` were not there; one that has no others keeps them (invariant 2)."""
    if not lost:
        return services
    return {name: _without(view, lost) for name, view in services.items()}


def _without(view: ServiceView, lost: frozenset[str]) -> ServiceView:
    left = {task: endpoint for task, endpoint in view.endpoints.items() if endpoint.datacenter not in lost}
    if not left or len(left) == len(view.endpoints):
        return view
    return view.with_endpoints(left, view.condemned & left.keys())
