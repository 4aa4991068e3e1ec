"""Steps of the balancer as records: one with everything, then what differs from the step before. PURE.

`step` compares by identity before it compares by value, so a recording has to tell which objects were the same ones. A
delta does so by what it leaves out: what is not in it is the very object of the step before. A key record has the state
too; what a service's memory shares with the inputs is marked there, not repeated. The state of later steps is not
recorded: the step makes it again.

What is only ever looked at by others than the balancer, the DNS zones, is left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from typing import Final, Generic, TypeVar, get_type_hints

from gslb.balancer.coverage import Coverage
from gslb.balancer.inputs import Deleted, Inputs, TaskState
from gslb.balancer.network import Matrix, Network
from gslb.balancer.sharing import NOTHING_SHARED, Pair, Sharing
from gslb.balancer.state import BalancerState, Decision, ServiceDecision, ServiceMemory
from gslb.model.plan import Plan
from gslb.model.resources import Catalog, Datacenter, Drain, Service
from gslb.recorder.codec import pack, pack_areas, unpack, unpack_areas
from gslb.recorder.errors import RecordingError

V = TypeVar("V")
# None: there is none; True: the very object that the inputs have; bytes: another one.
Shared = bytes | bool | None


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step of the balancer: what it was given and what it said. `number` counts the steps of a process."""

    number: int
    at_s: float  # UTC seconds since the epoch
    state: BalancerState  # before
    inputs: Inputs
    decision: Decision


@dataclass(frozen=True, slots=True)
class Table:
    """Entries that are new or another object than in the step before, and those that are gone."""

    set: Mapping[str, bytes] = field(default_factory=dict)
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InputsRecord:
    """None: the same object as in the step before."""

    datacenters: bytes | None
    areas: bytes | None
    drains: bytes | None
    rtt_ms: bytes | None
    services: Table
    tasks: Table
    demand: Table
    previous: Table
    changed: tuple[str, ...] | None
    callers: Table = field(default_factory=Table)  # by callee
    deleted: bytes | None = None


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """`row` and `column` follow from the names."""

    localities: tuple[str, ...]
    datacenters: tuple[str, ...]
    floor_ms: Matrix
    rtt_ms: Matrix
    tie_ms: Matrix
    sources: tuple[Shared, Shared, Shared] | None


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A service's memory. Numbers are places in the tables of the state; `own` is the rest, by field."""

    service: Shared
    tasks: Shared
    demand_seen: Shared
    compared: Shared
    network: int
    coverage: int
    budgets: int
    own: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class StateRecord:
    """In each table the first is the state's own. `sharing` None: nothing is shared; `own` is the rest, by field."""

    networks: tuple[NetworkRecord, ...]
    coverages: tuple[Coverage, ...]
    budgets: tuple[Mapping[Pair, float], ...]
    services: Mapping[str, MemoryRecord]
    sharing: bytes | None
    own: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Record:
    """One step. `rest` is the decision without its services."""

    number: int
    at_s: float
    inputs: InputsRecord
    services: Table  # of the decision, without their plans
    plans: Table
    rest: bytes
    state: StateRecord | None = None


NO_INPUTS: Final = Inputs(Catalog())
_MEMORY_SHARED: Final = frozenset({"service", "tasks", "demand_seen", "compared", "network", "coverage", "budgets"})
# What services that call others would reroute follows from their plans.
_STATE_SHARED: Final = frozenset({"network", "coverage", "services", "sharing", "rerouted"})
_MEMORY_HINTS: Final = get_type_hints(ServiceMemory)
_STATE_HINTS: Final = get_type_hints(BalancerState)


# To records


class Encoder:
    """Turns the steps of one process into records, each as a delta to the one before unless `key` is asked for."""

    def __init__(self) -> None:
        self._inputs = NO_INPUTS
        self._decided: Mapping[str, ServiceDecision] = {}
        self._digests: dict[str, bytes] = {}  # of what was told of each service but its plan

    def encode(self, step: Step, *, key: bool) -> bytes:
        """The bytes of a record. Without `key` the step has to be the one that follows the last one encoded."""
        if key:
            self._inputs = NO_INPUTS
            # What a service was told before is in its memory.
            self._decided = {name: memory.decision for name, memory in step.state.services.items()}
            self._digests = {name: _digest(_without_plan(one)) for name, one in self._decided.items()}
        record = Record(
            step.number,
            step.at_s,
            _inputs_record(self._inputs, step.inputs, whole=key),
            self._services(step.decision.services),
            _table(_plans(self._decided), _plans(step.decision.services), pack),
            pack(replace(step.decision, services={})),
            _state_record(step.state, step.inputs) if key else None,
        )
        self._inputs, self._decided = step.inputs, step.decision.services
        return pack(record)

    def _services(self, now: Mapping[str, ServiceDecision]) -> Table:
        """Those that differ: a service is often told the same again in another object, which would be most of a record."""
        news = {}
        for name, one in now.items():
            if self._decided.get(name) is one:
                continue
            data = _without_plan(one)
            digest = _digest(data)
            if self._digests.get(name) != digest:
                self._digests[name] = digest
                news[name] = data
        gone = tuple(name for name in self._decided if name not in now)
        for name in gone:
            self._digests.pop(name, None)
        return Table(news, gone)


def _without_plan(decision: ServiceDecision) -> bytes:
    return pack(replace(decision, plan=None))


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def _plans(decided: Mapping[str, ServiceDecision]) -> dict[str, Plan]:
    return {name: one.plan for name, one in decided.items() if one.plan is not None}


def _table(before: Mapping[str, V], now: Mapping[str, V], to_bytes: Callable[[V], bytes]) -> Table:
    return Table(
        {name: to_bytes(value) for name, value in now.items() if before.get(name) is not value},
        tuple(name for name in before if name not in now),
    )


def _inputs_record(before: Inputs, now: Inputs, *, whole: bool) -> InputsRecord:
    old, new = before.catalog, now.catalog

    def one(is_same: bool, to_bytes: Callable[[], bytes]) -> bytes | None:
        return None if is_same and not whole else to_bytes()

    return InputsRecord(
        one(old.datacenters is new.datacenters, lambda: pack(new.datacenters)),
        one(old.areas is new.areas, lambda: pack_areas(new.areas)),
        one(old.drains is new.drains, lambda: pack(new.drains)),
        one(before.rtt_ms is now.rtt_ms, lambda: pack(now.rtt_ms)),
        _table(old.services, new.services, pack),
        _table(before.tasks, now.tasks, pack),
        _table(before.demand, now.demand, pack),
        _table(before.previous, now.previous, pack),
        None if now.changed is None else tuple(sorted(now.changed)),
        # The step does not read it, so that nobody asks whether it is the same object.
        _table(
            before.callers, {name: _known(before.callers.get(name), one) for name, one in now.callers.items()}, pack
        ),
        None if before.deleted == now.deleted else pack(now.deleted),
    )


def _known(old: V | None, new: V) -> V:
    """The old object for an equal one."""
    return old if old is not None and old == new else new


def _state_record(state: BalancerState, inputs: Inputs) -> StateRecord:
    networks = _Places(state.network)
    coverages = _Places(state.coverage)
    budgets = _Places(state.sharing.budgets)
    services = {
        name: MemoryRecord(
            _shared(memory.service, inputs.catalog.services.get(name), pack),
            _shared(memory.tasks, inputs.tasks.get(name), pack),
            _shared(memory.demand_seen, inputs.demand.get(name), pack),
            _shared(memory.compared, inputs.previous.get(name), pack),
            networks.place(memory.network),
            coverages.place(memory.coverage),
            budgets.place(memory.budgets),
            _own(memory, _MEMORY_SHARED),
        )
        for name, memory in state.services.items()
    }
    return StateRecord(
        tuple(_network_record(network, inputs) for network in networks.values),
        tuple(coverages.values),
        tuple(budgets.values),
        services,
        None if state.sharing is NOTHING_SHARED else pack(state.sharing),
        _own(state, _STATE_SHARED),
    )


class _Places(Generic[V]):
    """A table of objects, each once."""

    def __init__(self, first: V) -> None:
        self.values: list[V] = [first]
        self._place = {id(first): 0}

    def place(self, value: V) -> int:
        """Where in the table the object stands."""
        if id(value) not in self._place:
            self._place[id(value)] = len(self.values)
            self.values.append(value)
        return self._place[id(value)]


def _shared(value: V | None, given: V | None, to_bytes: Callable[[V], bytes]) -> Shared:
    if value is None:
        return None
    return True if value is given else to_bytes(value)


def _own(value: ServiceMemory | BalancerState, elsewhere: frozenset[str]) -> dict[str, bytes]:
    return {one.name: pack(getattr(value, one.name)) for one in fields(value) if one.name not in elsewhere}


def _network_record(network: Network, inputs: Inputs) -> NetworkRecord:
    sources = None
    if network.sources is not None:
        datacenters, areas, rtt_ms = network.sources
        sources = (
            _shared(datacenters, inputs.catalog.datacenters, pack),
            _shared(areas, inputs.catalog.areas, pack_areas),
            _shared(rtt_ms, inputs.rtt_ms, pack),
        )
    return NetworkRecord(
        network.localities, network.datacenters, network.floor_ms, network.rtt_ms, network.tie_ms, sources
    )


# From records


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A step as it was recorded. `state` is None when it follows from the steps before.

    `decided` has the decision of every service but its plan as bytes, `plans` those, `rest` the decision without both.
    """

    number: int
    at_s: float
    inputs: Inputs
    decided: Mapping[str, bytes]
    plans: Mapping[str, bytes]
    rest: bytes
    state: BalancerState | None

    def decision(self) -> Decision:
        """What was decided. Raises RecordingError."""
        services = {name: self.service(name) for name in self.decided}
        return replace(unpack(Decision, self.rest), services=services)

    def service(self, name: str) -> ServiceDecision:
        """What was decided of one service. Raises RecordingError."""
        plan = self.plans.get(name)
        return replace(unpack(ServiceDecision, self.decided[name]), plan=None if plan is None else _plan(plan))


class Decoder:
    """The inverse of Encoder; begins with a key record."""

    def __init__(self) -> None:
        self._inputs: Inputs | None = None
        self._decided: dict[str, bytes] = {}
        self._plans: dict[str, bytes] = {}

    def decode(self, data: bytes) -> Recorded:
        """The next step. Raises RecordingError."""
        record = unpack(Record, data)
        if record.state is None and self._inputs is None:
            raise RecordingError("a recording begins with a step that is told by its difference to a missing one")
        inputs = _inputs(NO_INPUTS if record.state else self._inputs or NO_INPUTS, record.inputs)
        state = _state(record.state, inputs) if record.state else None
        if state is not None:
            told = {name: memory.decision for name, memory in state.services.items()}
            self._decided = {name: _without_plan(one) for name, one in told.items()}
            self._plans = {name: pack(plan) for name, plan in _plans(told).items()}
        self._decided = _merged(self._decided, record.services, bytes)
        self._plans = _merged(self._plans, record.plans, bytes)
        self._inputs = inputs
        return Recorded(record.number, record.at_s, inputs, self._decided, self._plans, record.rest, state)


def _merged(before: Mapping[str, V], table: Table, from_bytes: Callable[[bytes], V]) -> dict[str, V]:
    gone = frozenset(table.gone)
    kept = {name: value for name, value in before.items() if name not in gone}
    return kept | {name: from_bytes(data) for name, data in table.set.items()}


def _inputs(before: Inputs, record: InputsRecord) -> Inputs:
    old = before.catalog

    def one(data: bytes | None, kept: V, from_bytes: Callable[[bytes], V]) -> V:
        return kept if data is None else from_bytes(data)

    catalog = Catalog(
        one(record.datacenters, old.datacenters, _datacenters),
        one(record.areas, old.areas, unpack_areas),
        _merged(old.services, record.services, _service),
        one(record.drains, old.drains, _drains),
    )
    return Inputs(
        catalog,
        _merged(before.tasks, record.tasks, _tasks),
        _merged(before.demand, record.demand, _demand),
        one(record.rtt_ms, before.rtt_ms, _rtt_ms),
        _merged(before.previous, record.previous, _plan),
        _merged(before.callers, record.callers, _callers),
        one(record.deleted, before.deleted, _deleted),
        None if record.changed is None else frozenset(record.changed),
    )


def _deleted(data: bytes) -> Deleted:
    return unpack(Deleted, data)


def _datacenters(data: bytes) -> Mapping[str, Datacenter]:
    return unpack(dict[str, Datacenter], data)


def _drains(data: bytes) -> Mapping[str, Drain]:
    return unpack(dict[str, Drain], data)


def _service(data: bytes) -> Service:
    return unpack(Service, data)


def _tasks(data: bytes) -> tuple[TaskState, ...]:
    return unpack(tuple[TaskState, ...], data)


def _demand(data: bytes) -> Mapping[str, float]:
    return unpack(dict[str, float], data)


def _rtt_ms(data: bytes) -> Mapping[tuple[str, str], float]:
    return unpack(dict[tuple[str, str], float], data)


def _callers(data: bytes) -> Mapping[tuple[str, str], float]:
    return unpack(dict[tuple[str, str], float], data)


def _plan(data: bytes) -> Plan:
    return unpack(Plan, data)


def _object(shared: Shared, given: V | None, from_bytes: Callable[[bytes], V]) -> V | None:
    if isinstance(shared, bytes):
        return from_bytes(shared)
    return given if shared else None


def _present(shared: Shared, given: V | None, from_bytes: Callable[[bytes], V]) -> V:
    found = _object(shared, given, from_bytes)
    if found is None:
        raise RecordingError("a recorded state lacks something that its inputs should have: the record is broken")
    return found


def _state(record: StateRecord, inputs: Inputs) -> BalancerState:
    networks = [_network(each, inputs) for each in record.networks]
    sharing = NOTHING_SHARED if record.sharing is None else unpack(Sharing, record.sharing)
    # The budgets that the services compare theirs with are those of the split itself.
    budgets = [sharing.budgets, *record.budgets[1:]]
    services = {
        name: _memory(name, memory, inputs, (networks, record.coverages, budgets))
        for name, memory in record.services.items()
    }
    return BalancerState(
        network=networks[0],
        coverage=record.coverages[0],
        services=services,
        sharing=sharing,
        **_own_values(BalancerState, record.own),  # type: ignore[arg-type]  # by the class's own hints
    )


_Tables = tuple[list[Network], tuple[Coverage, ...], list[Mapping[Pair, float]]]


def _memory(name: str, record: MemoryRecord, inputs: Inputs, tables: _Tables) -> ServiceMemory:
    networks, coverages, budgets = tables
    try:
        network, coverage, budget = networks[record.network], coverages[record.coverage], budgets[record.budgets]
    except IndexError as error:
        raise RecordingError(f"the recorded state of service {name} points outside its tables") from error
    return ServiceMemory(
        service=_present(record.service, inputs.catalog.services.get(name), _service),
        tasks=_present(record.tasks, inputs.tasks.get(name), _tasks),
        demand_seen=_object(record.demand_seen, inputs.demand.get(name), _demand),
        compared=_object(record.compared, inputs.previous.get(name), _plan),
        network=network,
        coverage=coverage,
        budgets=budget,
        **_own_values(ServiceMemory, record.own),  # type: ignore[arg-type]
    )


def _network(record: NetworkRecord, inputs: Inputs) -> Network:
    sources = None
    if record.sources is not None:
        datacenters, areas, rtt_ms = record.sources
        sources = (
            _present(datacenters, inputs.catalog.datacenters, _datacenters),
            _present(areas, inputs.catalog.areas, unpack_areas),
            _present(rtt_ms, inputs.rtt_ms, _rtt_ms),
        )
    return Network(
        record.localities,
        record.datacenters,
        sources,
        {name: i for i, name in enumerate(record.localities)},
        {name: j for j, name in enumerate(record.datacenters)},
        record.floor_ms,
        record.rtt_ms,
        record.tie_ms,
    )


def _own_values(owner: type[ServiceMemory] | type[BalancerState], own: Mapping[str, bytes]) -> dict[str, object]:
    """Fields by name; those that this version does not know are left out."""
    hints = _MEMORY_HINTS if owner is ServiceMemory else _STATE_HINTS
    return {name: unpack(hints[name], data) for name, data in own.items() if name in hints}
