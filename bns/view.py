"""What a replica knows of BNS at one revision: an immutable value, and the fold that makes the next one. PURE.

A view is shared by every reader of a replica, so a change copies only what it touches: the tasks of one job, and the
table of jobs. A record that cannot be read is quarantined by itself, and the last good one under its key stays.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from typing_extensions import override

from bns.model import Agent, Task

AGENT_ROOT = "/bns-agent/"
AgentKey = tuple[str, str]
"""(datacenter, agent)"""

_NO_TASKS: Mapping[str, Task] = {}
_NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that is no task and no agent, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one key; None: it was deleted."""

    key: str
    value: Task | Agent | Unreadable | None


class TaskIndex(Mapping[str, Task]):
    """Immutable: tasks by name, by job and by agent."""

    __slots__ = ("_jobs", "_owned", "_size")

    def __init__(
        self,
        jobs: Mapping[str, Mapping[str, Task]] | None = None,
        owned: Mapping[AgentKey, frozenset[str]] | None = None,
        size: int = 0,
    ) -> None:
        self._jobs = jobs or {}
        self._owned = owned or {}
        self._size = size

    @override
    def __getitem__(self, name: str) -> Task:
        return self._jobs[name.rpartition("/")[0]][name]

    @override
    def __len__(self) -> int:
        return self._size

    @override
    def __iter__(self) -> Iterator[str]:
        for tasks in self._jobs.values():
            yield from tasks

    @property
    def jobs(self) -> Mapping[str, Mapping[str, Task]]:
        """/bns/DC/USER/JOB -> its tasks by name; a job without tasks is not there."""
        return self._jobs

    @property
    def owners(self) -> Mapping[AgentKey, frozenset[str]]:
        """The names of the tasks that each agent holds."""
        return self._owned

    def job(self, path: str) -> Mapping[str, Task]:
        """The tasks of /bns/DC/USER/JOB by name."""
        return self._jobs.get(path, _NO_TASKS)

    def owned_by(self, datacenter: str, agent: str) -> frozenset[str]:
        """The names of the tasks that an agent holds."""
        return self._owned.get((datacenter, agent), _NO_NAMES)

    def under(self, prefix: str) -> list[Task]:
        """The tasks under a prefix that `names.check_prefix` made, in the order of their keys in etcd."""
        if not prefix.endswith("/"):
            task = self.get(prefix)
            return [] if task is None else [task]
        found = self._jobs.get(prefix[:-1])
        if found is not None:
            return sorted(found.values(), key=_name)
        parts = (tasks.values() for path, tasks in self._jobs.items() if path.startswith(prefix))
        return sorted((task for tasks in parts for task in tasks), key=_name)

    def with_changes(self, changes: Mapping[str, Task | None]) -> "TaskIndex":
        """A new index; None removes."""
        jobs = dict(self._jobs)
        fresh: dict[str, dict[str, Task]] = {}
        owned: dict[AgentKey, set[str]] = {}
        size = self._size
        for name, task in changes.items():
            path = name.rpartition("/")[0]
            if path not in fresh:
                fresh[path] = dict(jobs.get(path, _NO_TASKS))
            old = fresh[path].pop(name, None)
            if old is not None:
                size -= 1
                self._owners_copy(owned, old).discard(name)
            if task is not None:
                size += 1
                fresh[path][name] = task
                self._owners_copy(owned, task).add(name)
        for path, tasks in fresh.items():
            if tasks:
                jobs[path] = tasks
            else:
                jobs.pop(path, None)
        return TaskIndex(jobs, _merged(self._owned, owned), size)

    def _owners_copy(self, owned: dict[AgentKey, set[str]], task: Task) -> set[str]:
        key = (task.datacenter, task.agent)
        if key not in owned:
            owned[key] = set(self._owned.get(key, _NO_NAMES))
        return owned[key]


def _name(task: Task) -> str:
    return task.name


def _merged(
    before: Mapping[AgentKey, frozenset[str]], changed: Mapping[AgentKey, set[str]]
) -> Mapping[AgentKey, frozenset[str]]:
    after = dict(before)
    for key, names in changed.items():
        if names:
            after[key] = frozenset(names)
        else:
            after.pop(key, None)
    return after


@dataclass(frozen=True, slots=True)
class BnsView:
    """Everything under /bns/ and /bns-agent/ at `revision`."""

    tasks: TaskIndex = field(default_factory=TaskIndex)
    agents: Mapping[AgentKey, Agent] = field(default_factory=dict)
    """Live ones: their lease holds."""
    revision: int = 0
    quarantined: Mapping[str, str] = field(default_factory=dict)
    """Keys whose stored value cannot be read -> why."""

    def is_live(self, datacenter: str, agent: str) -> bool:
        """Whether the agent's liveness lease held at this revision."""
        return (datacenter, agent) in self.agents

    def absent_owners(self) -> Mapping[AgentKey, frozenset[str]]:
        """Agents that hold tasks and are not live -> the names of those tasks."""
        return {key: names for key, names in self.tasks.owners.items() if key not in self.agents}


def fold(view: BnsView, changes: Sequence[Change], revision: int) -> tuple[BnsView, frozenset[str]]:
    """The view after `changes`, in their order, and the names of the tasks that differ from before."""
    tasks: dict[str, Task | None] = {}
    agents: dict[AgentKey, Agent] | None = None
    quarantined: dict[str, str] | None = None
    for change in changes:
        if isinstance(change.value, Unreadable):
            quarantined = dict(view.quarantined) if quarantined is None else quarantined
            quarantined[change.key] = change.value.reason
            continue
        if change.key in (view.quarantined if quarantined is None else quarantined):
            quarantined = dict(view.quarantined) if quarantined is None else quarantined
            del quarantined[change.key]
        if change.key.startswith(AGENT_ROOT):
            agents = dict(view.agents) if agents is None else agents
            _set_agent(agents, change)
        elif not isinstance(change.value, Agent):
            tasks[change.key] = change.value
    differing = {name: task for name, task in tasks.items() if view.tasks.get(name) != task}
    after = replace(
        view,
        tasks=view.tasks.with_changes(differing) if differing else view.tasks,
        agents=view.agents if agents is None else agents,
        quarantined=view.quarantined if quarantined is None else quarantined,
        revision=max(revision, view.revision),
    )
    return after, frozenset(differing)


def _set_agent(agents: dict[AgentKey, Agent], change: Change) -> None:
    datacenter, _, name = change.key[len(AGENT_ROOT) :].partition("/")
    if isinstance(change.value, Agent):
        agents[datacenter, name] = change.value
    else:
        agents.pop((datacenter, name), None)
