"""The rules of choice by name. PURE."""

from collections.abc import Callable
from typing import Final

from gslb.rpc.policy.adaptive import Adaptive
from gslb.rpc.policy.choice import LeastRequest, RoundRobin, Rule
from gslb.rpc.policy.interpret import LoadInterpretation
from gslb.rpc.policy.p2c import M
from gslb.rpc.policy.prequal import Prequal
from gslb.rpc.policy.ring import RingHash
from gslb.rpc.policy.weighted import WeightedRoundRobin

ROUND_ROBIN: Final = "round_robin"
LEAST_REQUEST: Final = "least_request"
WEIGHTED_ROUND_ROBIN: Final = "weighted_round_robin"
PREQUAL: Final = "prequal"
RING_HASH: Final = "ring_hash"
ADAPTIVE: Final = "adaptive"
LOAD_INTERPRETATION: Final = "load_interpretation"

NAMES: Final = (ROUND_ROBIN, LEAST_REQUEST, WEIGHTED_ROUND_ROBIN, PREQUAL, RING_HASH, ADAPTIVE, LOAD_INTERPRETATION)


def make_rule(name: str) -> Rule[M]:
    """A new rule for one channel and datacenter. Raises ValueError for a name that is none of NAMES."""
    makers: dict[str, Callable[[], Rule[M]]] = {
        ROUND_ROBIN: RoundRobin,
        LEAST_REQUEST: LeastRequest,
        WEIGHTED_ROUND_ROBIN: WeightedRoundRobin,
        PREQUAL: Prequal,
        RING_HASH: RingHash,
        ADAPTIVE: Adaptive,
        LOAD_INTERPRETATION: LoadInterpretation,
    }
    maker = makers.get(name)
    if maker is None:
        raise ValueError(f"no rule of choice is called {name!r}: use one of {', '.join(NAMES)}")
    return maker()
