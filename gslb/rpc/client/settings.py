"""What a channel was made for."""

from collections.abc import Callable
from dataclasses import dataclass

from gslb.model.criticality import Criticality


@dataclass(frozen=True, slots=True)
class Settings:
    """What a channel was made for."""

    service: str
    locality: str
    caller: str
    idempotent: Callable[[str], bool]  # by the method's full name: may a request be executed twice?
    criticality: Criticality | None = None  # None: inherited from the request being served
    hedging: bool = False  # idempotent calls with one request and one response may be sent twice when they are late
    policy: str = ""  # a name in `gslb.rpc.policy.rules`; empty: what the service's configuration calls for
    affinity: str = ""  # the metadata key whose value says which requests should meet at one task; empty: none
