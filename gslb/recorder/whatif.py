"""What an SRE may ask "what if" about, in the words of the command line, and what it changes for the balancer. PURE.

drain SCOPE TARGET              as `gslb drain` does, at once
undrain SCOPE TARGET            every drain of this scope and target; or `undrain NAME`
lose datacenter NAME            all its tasks are dead; demand from there goes on
lose task PATH
demand LOCALITY xFACTOR         of every service; SERVICE@LOCALITY: of one
capacity SERVICE xFACTOR        what each of its tasks serves; SERVICE@DATACENTER: there
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from bns.model import HealthStatus
from gslb.balancer.drains import admission_violations
from gslb.balancer.inputs import Inputs, TaskState
from gslb.balancer.learning import Learning
from gslb.balancer.state import BalancerState
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.meta import Meta
from gslb.model.resources import Backend, Catalog, Drain, DrainScope, Service
from gslb.model.validate import target_problem

WHAT_IFS_MAX: Final = 20
FACTOR_MAX: Final = 1000.0
FORMS: Final = (
    "drain SCOPE TARGET, undrain SCOPE TARGET, lose datacenter NAME, lose task PATH, demand LOCALITY xFACTOR, "
    "capacity SERVICE[@DATACENTER] xFACTOR"
)
_FACTOR = re.compile(r"[x×](\d+(?:\.\d+)?|\.\d+)")


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """What a step is given. `refusals`: why the control plane would not have done what is supposed."""

    state: BalancerState
    inputs: Inputs
    now_s: float
    refusals: tuple[str, ...] = ()


def suppose(moment: Moment, what_ifs: Sequence[str]) -> Moment:
    """The moment as if all of `what_ifs` held, one after the other. Raises InvalidValueError, saying what is wrong."""
    if len(what_ifs) > WHAT_IFS_MAX:
        raise InvalidValueError(f"{len(what_ifs)} what-ifs: at most {WHAT_IFS_MAX} at once")
    # Anything may have changed: the step has to look at every task.
    moment = replace(moment, inputs=replace(moment.inputs, changed=None))
    for text in what_ifs:
        words = text.split()
        change = _CHANGES.get(words[0]) if words else None
        if change is None:
            raise InvalidValueError(f"what if {text!r}? Write one of: {FORMS}")
        try:
            moment = change(moment, words[1:])
        except InvalidValueError as error:
            raise InvalidValueError(f"what if {text!r}: {error}") from error
    return moment


def _drain(moment: Moment, words: Sequence[str]) -> Moment:
    scope, target = _scoped(words)
    catalog = moment.inputs.catalog
    _check_known(moment.inputs, scope, target)
    now = datetime.fromtimestamp(moment.now_s, UTC)
    drain = Drain(
        Meta(f"what-if-{len(catalog.drains)}"),
        scope,
        target,
        "what if",
        "replay",
        now,
        now + timedelta(seconds=limits.DRAIN_MAX_S),
    )
    refusals = admission_violations(moment.inputs, drain, now_s=moment.now_s, state=moment.state)
    return replace(_with_drains(moment, {**catalog.drains, drain.name: drain}), refusals=(*moment.refusals, *refusals))


def _undrain(moment: Moment, words: Sequence[str]) -> Moment:
    drains = moment.inputs.catalog.drains
    if len(words) == 1:
        gone = {name for name in drains if name == words[0]}
    else:
        scope, target = _scoped(words)
        gone = {name for name, drain in drains.items() if drain.scope is scope and drain.target == target}
    if not gone:
        known = ", ".join(f"{drain.scope.value} {drain.target}" for drain in drains.values()) or "none"
        raise InvalidValueError(f"there was no such drain at that time; there were: {known}")
    return _with_drains(moment, {name: drain for name, drain in drains.items() if name not in gone})


def _lose(moment: Moment, words: Sequence[str]) -> Moment:
    if len(words) != 2 or words[0] not in {"datacenter", "task"}:
        raise InvalidValueError("write `lose datacenter NAME` or `lose task /bns/DATACENTER/USER/JOB/TASK`")
    scope = DrainScope(words[0])
    _check_known(moment.inputs, scope, words[1])

    def dead(task: TaskState) -> bool:
        return words[1] == (task.datacenter if scope is DrainScope.DATACENTER else task.name)

    return replace(moment, inputs=replace(moment.inputs, tasks={
        name: tuple(replace(task, health=HealthStatus.TIMEOUT) if dead(task) else task for task in tasks)
        if any(dead(task) for task in tasks)
        else tasks
        for name, tasks in moment.inputs.tasks.items()
    }))  # fmt: skip


def _demand(moment: Moment, words: Sequence[str]) -> Moment:
    target, factor = _factored(words, "demand [SERVICE@]LOCALITY xFACTOR")
    service, _, locality = target.rpartition("@")
    inputs = moment.inputs
    if service and service not in inputs.catalog.services:
        raise InvalidValueError(f"there was no service {service}")
    if locality not in inputs.catalog.datacenters and locality not in inputs.catalog.areas:
        raise InvalidValueError(f"there was no locality {locality}: name a datacenter or a client area")
    demand = {
        name: {**rates, locality: min(rates[locality] * factor, limits.RATE_MAX_RPS)}
        if locality in rates and service in {"", name}
        else rates
        for name, rates in inputs.demand.items()
    }
    if all(demand[name] is rates for name, rates in inputs.demand.items()):
        raise InvalidValueError(f"nothing was asked for from {locality}{f' of {service}' if service else ''}")
    return replace(moment, inputs=replace(inputs, demand=demand))


def _capacity(moment: Moment, words: Sequence[str]) -> Moment:
    target, factor = _factored(words, "capacity SERVICE[@DATACENTER] xFACTOR")
    name, _, datacenter = target.partition("@")
    if factor <= 0:
        raise InvalidValueError("a task that serves nothing is lost: write `lose task` or `lose datacenter`")
    service = moment.inputs.catalog.services.get(name)
    if service is None:
        raise InvalidValueError(f"there was no service {name}")
    jobs = {backend.job for backend in service.backends if datacenter in {"", backend.datacenter}}
    if not jobs:
        raise InvalidValueError(f"service {name} had no backend in {datacenter}")
    backends = tuple(_scaled(one, factor) if one.job in jobs else one for one in service.backends)
    catalog = moment.inputs.catalog
    inputs = replace(
        moment.inputs,
        catalog=replace(catalog, services={**catalog.services, name: replace(service, backends=backends)}),
    )
    return replace(moment, inputs=inputs, state=_with_learned(moment.state, name, jobs, factor))


def _scaled(backend: Backend, factor: float) -> Backend:
    return replace(backend, task_capacity_rps=backend.task_capacity_rps * factor)


def _with_learned(state: BalancerState, name: str, jobs: set[str], factor: float) -> BalancerState:
    """What was learned of the jobs' tasks, scaled as well; until reports say otherwise."""
    memory = state.services.get(name)
    if memory is None or not memory.learning.jobs:
        return state
    models = {
        job: replace(
            model, declared_rps=model.declared_rps * factor, task_rps=model.task_rps * factor, line=None, samples=()
        )
        if job in jobs
        else model
        for job, model in memory.learning.jobs.items()
    }
    learning: Learning = replace(memory.learning, jobs=models)
    return replace(state, services={**state.services, name: replace(memory, learning=learning)})


_CHANGES: Mapping[str, Callable[[Moment, Sequence[str]], Moment]] = {
    "drain": _drain,
    "undrain": _undrain,
    "lose": _lose,
    "demand": _demand,
    "capacity": _capacity,
}


def _scoped(words: Sequence[str]) -> tuple[DrainScope, str]:
    scopes = {scope.value: scope for scope in DrainScope}
    if len(words) != 2 or words[0] not in scopes:
        raise InvalidValueError(f"write SCOPE TARGET; a scope is one of {', '.join(scopes)}")
    problem = target_problem(scopes[words[0]], words[1])
    if problem:
        raise InvalidValueError(problem)
    return scopes[words[0]], words[1]


def _factored(words: Sequence[str], form: str) -> tuple[str, float]:
    found = _FACTOR.fullmatch(words[1]) if len(words) == 2 else None
    if found is None:
        raise InvalidValueError(f"write `{form}`, such as x2 or x0.5")
    factor = float(found[1])
    if not 0 <= factor <= FACTOR_MAX or not math.isfinite(factor):
        raise InvalidValueError(f"a factor is in 0..{FACTOR_MAX:g}, not {factor:g}")
    return words[0], factor


def _check_known(inputs: Inputs, scope: DrainScope, target: str) -> None:
    """Raises InvalidValueError when there was nothing of this name then: a typing error would change nothing."""
    catalog = inputs.catalog
    if not any(_covers(catalog, service, task, scope, target) for service, task in _all_tasks(inputs)):
        raise InvalidValueError(f"no task was in {scope.value} {target} at that time")


def _all_tasks(inputs: Inputs) -> list[tuple[Service, TaskState]]:
    services = inputs.catalog.services
    return [(services[name], task) for name, tasks in inputs.tasks.items() if name in services for task in tasks]


def _covers(catalog: Catalog, service: Service, task: TaskState, scope: DrainScope, target: str) -> bool:
    match scope:
        case DrainScope.DATACENTER:
            return task.datacenter == target
        case DrainScope.REGION:
            place = catalog.datacenters.get(task.datacenter)
            return place is not None and place.region == target
        case DrainScope.SERVICE:
            return target in {service.name, f"{service.name}@{task.datacenter}"}
        case DrainScope.JOB:
            return task.job == target
        case DrainScope.TASK:
            return task.name == target
        case DrainScope.MACHINE:
            return task.machine == target


def _with_drains(moment: Moment, drains: Mapping[str, Drain]) -> Moment:
    inputs = moment.inputs
    return replace(moment, inputs=replace(inputs, catalog=replace(inputs.catalog, drains=drains)))
