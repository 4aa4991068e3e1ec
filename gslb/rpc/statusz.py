"""What the library does in this process, for a /statusz page: channels, control connections, gates, quotas."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gslb.model.criticality import Criticality
from gslb.ops.tables import html_of
from gslb.rpc.client.explain import explain
from gslb.rpc.client.shared import connections
from gslb.rpc.server.gate import Gate, GateState

if TYPE_CHECKING:
    from gslb.rpc.server.quotas import Quotas

_NO_GATES: Final[Mapping[str, Gate]] = MappingProxyType({})


def status(gates: Mapping[str, Gate] = _NO_GATES, quotas: Iterable["Quotas"] = ()) -> dict[str, object]:
    """As plain values, fit for JSON. `gates`: those of this process's servers, by a name of the caller's choice."""
    found = connections()
    return {
        "channels": [explain(core) for connection in found for core in connection.cores()],
        "control": [connection.explain() for connection in found],
        "gates": {name: gate_values(gate.state()) for name, gate in gates.items()},
        "quotas": [each.explain() for each in quotas],
    }


def status_html(gates: Mapping[str, Gate] = _NO_GATES, quotas: Iterable["Quotas"] = ()) -> str:
    """The same as a fragment for a page of the application's own; everything is escaped."""
    return f'<section class="gslb-rpc">{html_of(status(gates, quotas))}</section>'


def gate_values(state: GateState) -> dict[str, object]:
    """What a gate does, with its refusals by class."""
    refused = {level.name: count for level, count in zip(Criticality, state.refused, strict=True)}
    return {**asdict(state), "refused": refused}
