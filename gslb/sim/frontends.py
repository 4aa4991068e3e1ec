"""The DNS frontends that answer a client area: what they hold, and whom they take to be lost while nobody tells them.

The judgement is the frontends' own (`gslb.steer.absence`); here are only the rounds of probes that it is fed with.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dns_frontend.limits import PROBE_BASELINE_S, PROBE_PERIOD_S, PROBES_PER_DATACENTER
from gslb.steer.absence import Absence, Outcome, without
from gslb.steer.view import ServiceView

# Nobody probed before so long a time.
ROUNDS_PAUSE_S = 5.0


@dataclass(slots=True)
class Frontend:
    """All frontends of one area, as one."""

    absence: Absence = field(default_factory=Absence)
    due_s: float = 0.0
    _held: Mapping[str, ServiceView] = field(default_factory=dict)  # what `_served` was made from
    _served: Mapping[str, ServiceView] = field(default_factory=dict)

    def look(
        self,
        views: Mapping[str, ServiceView],
        answers: Callable[[str], bool],
        now_s: float,
        rng: random.Random,
        *,
        connected: bool,
    ) -> None:
        """A round of probes if one is due: often while no control plane is heard, seldom otherwise."""
        if now_s < self.due_s and (connected or self.due_s - now_s <= PROBE_PERIOD_S):
            return
        before = self.absence.lost
        if connected:
            self.absence = self.absence.baseline(_round(views, answers, rng))
            self.due_s = now_s + PROBE_BASELINE_S
        else:
            # A tick of the simulator is longer than the time between two rounds.
            for _ in range(_rounds_due(now_s - self.due_s)):
                self.absence = self.absence.after(_round(views, answers, rng))
            self.due_s = now_s + PROBE_PERIOD_S
        if self.absence.lost != before:
            self._held = {}

    def view(self, views: Mapping[str, ServiceView], service: str) -> ServiceView | None:
        """The service as answers are made from it."""
        if not self.absence.lost:
            return views.get(service)
        held = views.get(service)
        if self._held.get(service) is not held:
            self._held = dict(views)
            self._served = without(views, self.absence.lost)
        return self._served.get(service)


def _rounds_due(late_s: float) -> int:
    """How many rounds there were in this time, the first at its beginning; after a pause without any: one."""
    return 1 + int(late_s / PROBE_PERIOD_S) if 0 <= late_s <= ROUNDS_PAUSE_S else 1


def _round(views: Mapping[str, ServiceView], answers: Callable[[str], bool], rng: random.Random) -> dict[str, Outcome]:
    """A few endpoints of each datacenter are asked, of all services together."""
    tasks: dict[str, list[str]] = {}
    for view in views.values():
        for datacenter, members in view.serving.items():
            tasks.setdefault(datacenter, []).extend(endpoint.task for endpoint in members)
    outcomes = {}
    for datacenter, names in tasks.items():
        chosen = rng.sample(names, min(PROBES_PER_DATACENTER, len(names)))
        answered = sum(answers(task) for task in chosen)
        outcomes[datacenter] = Outcome(answered, len(chosen) - answered)
    return outcomes
