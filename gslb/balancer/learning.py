"""What one task of each job serves, learned from CPU and load; for backends in mode `utilization`. PURE.

Each step takes the new reports of a service's tasks in (`reports`), pools them by job into one sample, fits the job's
line (`regression`) and follows it with what a task is taken to serve:

- capacity = (target - idle) / cost, divided by what the errors among the requests cost more, blended with the
  declared value as far as the fit is uncertain, and never farther than tenfold from it;
- it stays while the estimate is near, falls at once (by half in a period at most), and rises slowly;
- errors never make it rise: while a task answers many, its reports may only show that requests cost more;
- a task on a machine that others keep busy counts for what is left there (`machine`);
- tasks that just started, and datacenters that have been idle, count for part of it and ramp up.
"""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from bns.model import HealthStatus
from gslb.balancer import machine, regression, reports
from gslb.balancer.inputs import TaskState
from gslb.balancer.machine import Guard, Seen, guarded
from gslb.balancer.regression import UNKNOWN_IDLE, Idle, Line, Sample
from gslb.balancer.reports import CLEAN_ERRORS, ERROR_COST, Believed, Load, TaskMemory
from gslb.model.resources import Backend, CapacityMode, Service

# The window: about three minutes at a report every five seconds.
WINDOW_S: Final = 180.0
SAMPLES_MAX: Final = 36
# A load below this part of capacity is no news while there is a good fit; of next to none idle CPU can be read.
LOADED_FRACTION: Final = 0.05
UNLOADED_FRACTION: Final = 0.01
GOOD_ERROR: Final = 0.3
# A job's figures are held against those of other jobs, if there are so many.
PEERS_MIN: Final = 2
# How far off the owner's own figure is taken to be, when it and the fit are weighed against each other.
DECLARED_ERROR: Final = 1.0
DECLARED_FACTOR_MAX: Final = 10.0
FIT_HALF_LIFE_S: Final = 1800.0
# An estimate this near to what is in force changes nothing; nearer while there are few samples yet.
HOLD_FRACTION: Final = 0.03
HOLD_YOUNG_FRACTION: Final = 0.01
YOUNG_SAMPLES: Final = 16
# While all is as expected, not every sample is worth a fit.
FIT_SAMPLES: Final = 4
# The most that capacity may change in PERIOD_S.
PERIOD_S: Final = 5.0
GROWTH_MAX: Final = 1.1
FALL_MAX: Final = 0.5
# Errors: what one costs is learned within these bounds (in requests).
ERROR_COST_MAX: Final = 5.0
ERROR_GAIN: Final = 0.3
IDLE_GAIN_S: Final = 60.0
# A task begins with this part of its capacity and has all of it after the ramp.
RAMP_START: Final = 0.3
RAMP_S: Final = 30.0
# The tasks that register within this time of a new service's first are its first, and do not ramp.
OPENING_S: Final = 30.0
# A job that served less than IDLE_FRACTION of its capacity for COLD_AFTER_S begins with this part of it.
COLD_START: Final = 0.5
COLD_AFTER_S: Final = 300.0
COLD_FRACTION: Final = 0.02
BUSY_FRACTION: Final = 0.1
# A clock that jumps farther than this did not pass.
STEP_MAX_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class JobModel:
    """What is known of one job. `task_rps` is what is in force for a task that is warm."""

    declared_rps: float
    target: float
    task_rps: float
    samples: tuple[Sample, ...] = ()
    idle: Idle = UNKNOWN_IDLE
    line: Line | None = None
    unfitted: int = 0  # samples since the fit
    error_cost: float = ERROR_COST  # in requests
    error_share: float = 0.0  # of all requests, smoothed
    warmth: float = 1.0
    seen_s: float = 0.0  # of the last report, and since when it serves next to nothing; on the learner's clock
    idle_since_s: float = math.inf

    @property
    def mix(self) -> float:
        """What a request costs on average over what a successful one costs."""
        return 1 + (self.error_cost_used - 1) * self.error_share

    @property
    def error_cost_used(self) -> float:
        return min(max(self.error_cost, ERROR_COST), ERROR_COST_MAX)


@dataclass(frozen=True, slots=True, eq=False)
class Learning:
    """What was learned of one service. `clock_s` counts the time that passed between its steps."""

    clock_s: float = 0.0
    wall_s: float = 0.0
    jobs: Mapping[str, JobModel] = field(default_factory=dict)
    tasks: Mapping[str, TaskMemory] = field(default_factory=dict)
    ramps: Mapping[str, float] = field(default_factory=dict)  # by task, of those that have not all their capacity yet
    guards: Mapping[str, Guard] = field(default_factory=dict)  # by task, of those whose machine is known
    notes: tuple[str, ...] = ()
    opened_s: float = math.inf  # when its first task was seen; -inf: it was served before anybody looked

    def task_rps(self, backend: Backend) -> float:
        """What one warm task of `backend` serves."""
        model = self.jobs.get(backend.job)
        return backend.task_capacity_rps if model is None else model.task_rps

    def limit_rps(self, task: TaskState) -> float:
        """What `task`'s machine leaves it; infinite where that is no limit."""
        guard = self.guards.get(task.name)
        return math.inf if guard is None else guard.rps

    def warmth_of(self, task: TaskState) -> float:
        """The part of its capacity that `task` has now."""
        model = self.jobs.get(task.job)
        return 1.0 if model is None else model.warmth * self.ramps.get(task.name, 1.0)


UNLEARNED: Final = Learning()


def learn(
    before: Learning, service: Service, tasks: Sequence[TaskState], now_s: float, seed_rps: Mapping[str, float]
) -> Learning:
    """Takes the step's reports in.

    `seed_rps`: capacity by datacenter of the published plan, where a new leader goes on. Backends of mode `rate` are
    left out; without others nothing is kept.
    """
    backends = {backend.job: backend for backend in service.backends if _learnable(backend)}
    if not backends:
        return UNLEARNED
    first = not before.jobs
    passed_s = 0.0 if first else min(max(0.0, now_s - before.wall_s), STEP_MAX_S)
    clock_s = before.clock_s + passed_s
    opened_s = _opened_s(before, tasks, backends, clock_s, served=first and bool(seed_rps))
    opening = first or clock_s - opened_s <= OPENING_S
    memories = {
        task.name: reports.remembered(task, before.tasks.get(task.name), clock_s, first=opening)
        for task in tasks
        if task.job in backends
    }
    models = {}
    for job, backend in backends.items():
        known = before.jobs.get(job)
        # A job that joins a service that is known already was no part of the published capacity.
        models[job] = _current(known, backend) if known else _begun(backend, tasks, seed_rps if first else {})
    costs = _costs(models)
    idles = [model.idle.cpu for model in models.values() if model.idle.is_known]
    middle_idle = statistics.median(idles or (0.0,))
    # What the first tasks of a new service use at first is their start, and would be taken for their idle CPU.
    loads = _loads(tasks, memories, clock_s) if clock_s - opened_s >= reports.SETTLE_S else {}
    after: dict[str, JobModel] = {}
    for job, model in models.items():
        peer_idle = middle_idle if len(idles) - model.idle.is_known >= PEERS_MIN else None
        believed = Believed(model.task_rps, model.idle.cpu, _peer_cost(model, costs), peer_idle or 0.0)
        sifted = reports.sift(loads.get(job, ()), believed)
        for load in loads.get(job, ()):
            memories[load.task] = reports.judged(memories[load.task], sifted.doubts.get(load.task, ""))
        taken = [load for load in sifted.loads if not math.isnan(load.cpu)]
        after[job] = _followed(_sampled(model, taken, clock_s, peer_idle), clock_s, passed_s)
    guards = _guards(before.guards, [task for task in tasks if task.job in backends], after, passed_s)
    told = (*reports.notes(memories), *machine.notes(guards, {task.name: task.machine for task in tasks}))
    return Learning(clock_s, now_s, after, memories, _ramps(memories, clock_s), guards, told, opened_s)


def _guards(
    before: Mapping[str, Guard], tasks: Sequence[TaskState], models: Mapping[str, JobModel], passed_s: float
) -> dict[str, Guard]:
    """What the machines leave the tasks; reports that are old say nothing about it."""
    beside = Counter(task.machine for task in tasks)
    guards: dict[str, Guard] = {}
    for task in tasks:
        model = models[task.job]
        if task.report_age_s > reports.REPORT_AGE_MAX_S:
            guard = before.get(task.name)
        else:
            own = model.line.cost if model.line is not None else model.target / model.declared_rps
            load_rps = task.ok_rps + ERROR_COST * task.error_rps
            shared = beside[task.machine] if task.machine else 1
            seen = Seen(task.machine_cpu, load_rps, shared, own * task.machine_part, model.task_rps)
            guard = guarded(before.get(task.name), seen, passed_s)
        if guard is not None:
            guards[task.name] = guard
    return guards


def _opened_s(
    before: Learning, tasks: Sequence[TaskState], jobs: Collection[str], clock_s: float, *, served: bool
) -> float:
    """When the service's first task was seen. `served`: a plan for it was there before this learner."""
    if served:
        return -math.inf
    if before.opened_s < math.inf or not any(task.job in jobs for task in tasks):
        return before.opened_s
    return clock_s


def _learnable(backend: Backend) -> bool:
    """A declaration that makes no sense is refused where capacity is summed up."""
    sensible = 0 < backend.task_capacity_rps < math.inf and 0 < backend.target_utilization < math.inf
    return backend.mode is CapacityMode.UTILIZATION and sensible


def _begun(backend: Backend, tasks: Sequence[TaskState], seed_rps: Mapping[str, float]) -> JobModel:
    """A job's first model: what a task served by the published plan, as far as can be told; else what is declared."""
    usable = sum(task.datacenter == backend.datacenter and task.health is HealthStatus.HEALTHY for task in tasks)
    rps = seed_rps.get(backend.datacenter, 0.0)
    declared = backend.task_capacity_rps
    task_rps = _bounded(rps / usable, declared) if usable and 0 < rps < math.inf else declared
    return JobModel(declared, backend.target_utilization, task_rps)


def _current(model: JobModel, backend: Backend) -> JobModel:
    """The model under today's declaration."""
    declared, target = backend.task_capacity_rps, backend.target_utilization
    if model.declared_rps == declared and model.target == target:
        return model
    rps = model.task_rps if model.line else declared
    return replace(model, declared_rps=declared, target=target, task_rps=_bounded(rps, declared))


def _loads(tasks: Sequence[TaskState], memories: Mapping[str, TaskMemory], clock_s: float) -> dict[str, list[Load]]:
    """New reports by job."""
    loads: dict[str, list[Load]] = defaultdict(list)
    for task in tasks:
        memory = memories.get(task.name)
        if memory is not None and memory.fresh and reports.settled(memory, clock_s):
            loads[task.job].append(Load(task.name, task.ok_rps, task.error_rps, task.cpu_utilization))
    return loads


def _costs(models: Mapping[str, JobModel]) -> list[float]:
    """CPU of a task at its declared load, by every job's fit, the cheapest first."""
    return sorted(model.line.cost * model.declared_rps for model in models.values() if model.line is not None)


def _peer_cost(model: JobModel, costs: Sequence[float]) -> float | None:
    """CPU per rps that the other jobs' fits suggest, scaled by what is declared; None without two of them."""
    own = None if model.line is None else model.line.cost * model.declared_rps
    others = len(costs) - (own is not None)
    if others < PEERS_MIN:
        return None
    middle = (others - 1) // 2
    # The middle of the others: with the own one before it, one place farther.
    if own is not None and own <= costs[middle]:
        middle += 1
    return costs[middle] / model.declared_rps


def _sampled(model: JobModel, loads: Sequence[Load], clock_s: float, peer_idle: float | None) -> JobModel:
    """With one sample of the believed reports, and the fit made anew if that is worth it."""
    if not loads:
        return model
    ok, error, cpu = _mean(loads)
    share = error / (ok + error) if ok + error > 0 else 0.0
    model = _noticed(model, ok + error, share, clock_s)
    clean = [load for load in loads if load.error_share <= CLEAN_ERRORS]
    if clean and share <= CLEAN_ERRORS:
        # A task that does little but fail says nothing of what a request costs, be its errors few among all.
        loads = clean
        ok, error, cpu = _mean(clean)
        share = error / (ok + error) if ok + error > 0 else 0.0
    load_rps = ok + ERROR_COST * error
    if load_rps < UNLOADED_FRACTION * model.task_rps:
        return replace(model, idle=_idle_at(model, load_rps, cpu, peer_idle))
    if load_rps < LOADED_FRACTION * model.task_rps and _good(model):
        return model
    if share > CLEAN_ERRORS:
        seen = _error_cost(model, ok, error, cpu)
        model = replace(model, error_cost=model.error_cost + ERROR_GAIN * share * (seen - model.error_cost))
        # What errors explain is not the requests' cost; what is left may only make them dearer.
        if seen < ERROR_COST_MAX:
            return model
        load_rps = ok + ERROR_COST_MAX * error
    kept = (*model.samples[1 - SAMPLES_MAX :], Sample(clock_s, load_rps, cpu, len(loads)))
    while clock_s - kept[0].at_s > WINDOW_S:
        kept = kept[1:]
    idle = regression.suggested_idle(peer_idle) if regression.refuted(model.idle, kept) else model.idle
    model = replace(model, samples=kept, unfitted=model.unfitted + 1, idle=idle)
    return _fitted(model) if _worth_a_fit(model) else model


def _mean(loads: Sequence[Load]) -> tuple[float, float, float]:
    """(ok rps, error rps, CPU) of a task, on average."""
    count = len(loads)
    ok = math.fsum(load.ok_rps for load in loads) / count
    error = math.fsum(load.error_rps for load in loads) / count
    return ok, error, math.fsum(load.cpu for load in loads) / count


def _good(model: JobModel) -> bool:
    """Whether samples of a low load can only make the fit worse."""
    return model.line is not None and model.line.relative_error(model.target, model.idle) < GOOD_ERROR


def _idle_at(model: JobModel, load_rps: float, cpu: float, peer_idle: float | None) -> Idle:
    """What next to no load says of idle CPU: what is left when requests cost as much as they possibly can.

    Far more than other jobs' is of something that runs beside, and would make requests look cheap once it ends.
    """
    cost = DECLARED_FACTOR_MAX * model.target / model.declared_rps
    seen = max(cpu - cost * load_rps, 0.0)
    if peer_idle is not None and seen > peer_idle + max(peer_idle, regression.IDLE_UNKNOWN):
        return model.idle
    return regression.seen_idle(model.idle, min(seen, regression.IDLE_OF_TARGET_MAX * model.target))


def _error_cost(model: JobModel, ok_rps: float, error_rps: float, cpu: float) -> float:
    """What an error costs by this sample, in requests."""
    if model.line is None:
        return ERROR_COST
    seen = (cpu - model.line.cpu_at(ok_rps)) / (error_rps * model.line.cost)
    return min(max(seen, 0.0), ERROR_COST_MAX)


def _worth_a_fit(model: JobModel) -> bool:
    if model.line is None or len(model.samples) < YOUNG_SAMPLES or model.unfitted >= FIT_SAMPLES:
        return True
    newest = model.samples[-1]
    return abs(newest.cpu / model.line.cpu_at(newest.load_rps) - 1) > regression.NEAR_FRACTION


def _fitted(model: JobModel) -> JobModel:
    line = regression.fit(model.samples, model.idle, model.target)
    if line is not None and regression.shifted(model.samples, line):
        model = replace(model, samples=model.samples[-regression.SHIFT_SAMPLES :])
        line = regression.fit(model.samples, model.idle, model.target)
    if line is None:
        return model
    newest = model.samples[-min(model.unfitted + 1, len(model.samples)) :]
    gain = 1 - 0.5 ** ((newest[-1].at_s - newest[0].at_s) / IDLE_GAIN_S)
    return replace(model, line=line, unfitted=0, idle=regression.learned_idle(model.idle, line, model.target, gain))


def _noticed(model: JobModel, rps: float, error_share: float, clock_s: float) -> JobModel:
    """With this load seen: serving warms a job up, idleness cools it down."""
    warmth, idle_since_s = model.warmth, math.inf
    if rps >= BUSY_FRACTION * model.task_rps:
        passed_s = min(clock_s - model.seen_s, STEP_MAX_S)
        warmth = min(1.0, warmth + (1 - COLD_START) * passed_s / RAMP_S)
    elif rps <= COLD_FRACTION * model.task_rps:
        idle_since_s = min(model.idle_since_s, clock_s)
        warmth = COLD_START if clock_s - idle_since_s >= COLD_AFTER_S else warmth
    errors = model.error_share + ERROR_GAIN * (error_share - model.error_share)
    return replace(model, error_share=errors, warmth=warmth, idle_since_s=idle_since_s, seen_s=clock_s)


def _followed(model: JobModel, clock_s: float, passed_s: float) -> JobModel:
    """What is in force, moved towards the estimate."""
    line = model.line
    if line is None:
        return model
    estimate = estimate_rps(model, line, clock_s)
    hold = HOLD_YOUNG_FRACTION if len(model.samples) < YOUNG_SAMPLES else HOLD_FRACTION
    if abs(estimate / model.task_rps - 1) <= hold:
        return model
    periods = passed_s / PERIOD_S
    least, most = model.task_rps * FALL_MAX**periods, model.task_rps * GROWTH_MAX**periods
    return replace(model, task_rps=min(max(estimate, least), most))


def estimate_rps(model: JobModel, line: Line, clock_s: float) -> float:
    """rps of one task at its target, the fit and the declaration weighed by how sure they are."""
    learned = line.load_at(model.target) / model.mix
    error = line.relative_error(model.target, model.idle)
    trust = 1 / (1 + (error / DECLARED_ERROR) ** 2)
    trust *= 0.5 ** (max(0.0, clock_s - model.samples[-1].at_s) / FIT_HALF_LIFE_S)
    blended = model.declared_rps * (learned / model.declared_rps) ** trust
    return _bounded(blended, model.declared_rps)


def _bounded(rps: float, declared_rps: float) -> float:
    return min(max(rps, declared_rps / DECLARED_FACTOR_MAX), declared_rps * DECLARED_FACTOR_MAX)


def _ramps(memories: Mapping[str, TaskMemory], clock_s: float) -> dict[str, float]:
    """The ramp of every healthy task that started a short while ago; none while no other task is farther on."""
    ramps: dict[str, float] = {}
    farthest = 0.0
    for name, memory in memories.items():
        if memory.health is not HealthStatus.HEALTHY:
            continue
        age_s = clock_s - memory.since_s
        part = 1.0 if age_s >= RAMP_S else RAMP_START + (1 - RAMP_START) * age_s / RAMP_S
        farthest = max(farthest, part)
        if part < 1:
            ramps[name] = part
    return {name: part / farthest for name, part in ramps.items() if part < farthest}
