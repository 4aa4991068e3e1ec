"""The rules of choice by name. PURE."""

from collections.abc import Callable
from typing import Final

from gslb.rpc.policy.choice import LeastRequest, RoundRobin, Rule
from gslb.rpc.policy.p2c import M

ROUND_ROBIN: Final = "round_robin"
LEAST_REQUEST: Final = "least_request"

NAMES: Final = (ROUND_ROBIN, LEAST_REQUEST)


def make_rule(name: str) -> Rule[M]:
    """A new rule for one channel and datacenter. Raises ValueError for a name that is none of NAMES."""
    makers: dict[str, Callable[[], Rule[M]]] = {ROUND_ROBIN: RoundRobin, LEAST_REQUEST: LeastRequest}
    maker = makers.get(name)
    if maker is None:
        raise ValueError(f"no rule of choice is called {name!r}: use one of {', '.join(NAMES)}")
    return maker()
