"""Steps one service period by period, and publishes what changed, as the control plane does."""

from dataclasses import replace

from gslb.balancer.inputs import Inputs
from gslb.balancer.state import BalancerState, Decision
from gslb.balancer.step import step
from gslb.model.plan import Plan
from tests.support.balancer import NOW_S

PERIOD_S = 5.0


class Run:
    """`inputs` are those of the last step."""

    def __init__(self, inputs: Inputs, name: str = "backend") -> None:
        self.inputs = inputs
        self.name = name
        self.now_s = NOW_S
        self.state = BalancerState()
        self.decision = Decision()

    def step(self, inputs: Inputs | None = None, after_s: float = PERIOD_S) -> Plan:
        """The plan after `after_s`, with `inputs` from now on."""
        self.now_s += after_s
        self.inputs = replace(inputs or self.inputs, previous=self.inputs.previous)
        self.state, self.decision = step(self.state, self.inputs, now_s=self.now_s)
        changed = {name: each.plan for name, each in self.decision.services.items() if each.changed and each.plan}
        self.inputs = replace(self.inputs, previous={**self.inputs.previous, **changed})
        plan = self.decision.services[self.name].plan
        assert plan is not None
        return plan
