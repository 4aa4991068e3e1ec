"""Agents' sessions on this replica, and the removal of what vanished agents left behind.

Any replica can terminate any agent's stream: the session is what stands in etcd, and the newest one wins. Deletions are
few and explicit: an agent deregisters, or the leading replica reaps, by the rules of `bns.reaping`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc

from bns import limits
from bns.errors import BadRecordError
from bns.etcd.client import Client
from bns.etcd.errors import EtcdError, OutcomeUnknown
from bns.etcd.ops import compare_create, compare_mod, op_delete
from bns.etcd.v3 import rpc_pb2 as pb
from bns.keys import AGENTS, agent_key, task_key
from bns.model import Task
from bns.names import InvalidNameError, check_label
from bns.reaping import ReapDecision, ReaperState, ReapPolicy, decide, note_removed, observe
from bns.session import Hello, Session, refused
from bns.store import BnsStore, read_record
from bns.v1 import bns_pb2
from bns.view import AgentKey, BnsView

log = logging.getLogger(__name__)

SYNC_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ReapReport:
    """What one round of reaping did. `reachable`: etcd could be asked. `absent_s`: agent -> seconds of absence seen."""

    reachable: bool
    removed: tuple[str, ...] = ()
    decision: ReapDecision = field(default_factory=ReapDecision)
    absent_s: dict[AgentKey, float] = field(default_factory=dict)


class BnsRegistry:
    """`replica`: this process's name in agents' records; unique among the replicas."""

    def __init__(
        self,
        etcd: Client,
        store: BnsStore,
        replica: str,
        *,
        liveness_ttl_s: int = limits.LIVENESS_TTL_S,
        policy: ReapPolicy | None = None,
    ) -> None:
        self._etcd = etcd
        self._store = store
        self._replica = replica
        self._policy = policy or ReapPolicy()
        self._reaper = ReaperState()
        self.liveness_ttl_s = liveness_ttl_s
        self.sessions: dict[AgentKey, Session] = {}
        self._unsubscribe = store.subscribe(self._on_store)

    async def open(self, hello: Hello) -> tuple[Session, list[Task]]:
        """A session for an agent, and the tasks that BNS holds for it.

        Raises RefusedError, UnavailableError, EtcdError.
        """
        key = (hello.datacenter, hello.agent)
        await self._store.wait_for_revision(0, SYNC_TIMEOUT_S)
        session = Session(self._etcd, hello, self._replica, self.liveness_ttl_s)
        revision = await session.open()
        try:
            # The mirror has seen our record, so it has seen every task that was registered before.
            view = await self._store.wait_for_revision(revision, SYNC_TIMEOUT_S)
        except BaseException:
            session.close()
            raise
        self._put(key, session)
        session.check(view.agents.get(key), view.revision)
        adopted = [view.tasks[name] for name in sorted(view.tasks.owned_by(*key))]
        session.names.update(task.name for task in adopted)
        return session, adopted

    def _put(self, key: AgentKey, session: Session) -> None:
        """Of two that came at once, the one that etcd heard last stays. Raises RefusedError for the other."""
        former = self.sessions.get(key)
        over = refused(grpc.StatusCode.ABORTED, f"agent {'/'.join(key)} attached anew: this session is over")
        if former is not None and former.mod_revision > session.mod_revision:
            session.close()
            raise over
        self.sessions[key] = session
        if former is not None:
            former.end(over)

    def leave(self, session: Session) -> None:
        """The session's stream is gone: its lease is no longer renewed, its tasks stay."""
        session.close()
        key = (session.hello.datacenter, session.hello.agent)
        if self.sessions.get(key) is session:
            del self.sessions[key]

    async def close(self) -> None:
        """Leaves all sessions; agents attach elsewhere."""
        self._unsubscribe()
        for session in list(self.sessions.values()):
            self.leave(session)

    def _on_store(self, _: frozenset[str], view: BnsView) -> None:
        for key, session in list(self.sessions.items()):
            session.check(view.agents.get(key), view.revision)

    # ---- reaping ---------------------------------------------------------------------------------------------

    async def reap(self, now_s: float, fence: Sequence[pb.Compare] = ()) -> ReapReport:
        """One round: call it every few seconds on the leader, with `now_s` from a monotonic clock.

        `fence`: comparisons that must hold for each removal, such as the leader's own key.
        """
        view = self._store.view
        try:
            kvs, _ = await self._etcd.scan(AGENTS, keys_only=True)
        except EtcdError as error:
            log.info("nothing is reaped while etcd cannot be asked: %s", error)
            self._reaper = observe(self._reaper, None, now_s)
            return ReapReport(reachable=False, absent_s=dict(self._reaper.absent_s))
        live = {kv.key for kv in kvs}
        # A record without an agent was written by hand: only a hand removes it.
        absent = {owner for owner in view.tasks.owners if owner[1] and agent_key(*owner) not in live}
        self._reaper = observe(self._reaper, absent, now_s)
        decision = decide(self._reaper, view.tasks, now_s, self._policy)
        removed = [name for name in decision.remove if await self._remove(view.tasks[name], fence)]
        self._reaper = note_removed(self._reaper, removed, now_s, self._policy)
        if removed:
            log.warning("reaped %d tasks of vanished agents, such as %s", len(removed), removed[0])
        return ReapReport(True, tuple(removed), decision, dict(self._reaper.absent_s))

    async def _remove(self, task: Task, fence: Sequence[pb.Compare]) -> bool:
        """Only if the task is as it was and its agent still away."""
        key = task_key(task.name)
        try:
            kv = await self._etcd.get(key)
            if kv is None or read_record(task.name, kv.value).value != task:
                return False
            compares = [
                *fence,
                compare_mod(key, "==", kv.mod_revision),
                compare_create(agent_key(task.datacenter, task.agent), "==", 0),
            ]
            return (await self._etcd.txn(compares, [op_delete(key)])).succeeded
        except OutcomeUnknown:
            return True  # counted against the budget: it may have been removed
        except EtcdError as error:
            log.info("%s was not reaped: %s", task.name, error)
            return False


def parse_hello(message: bns_pb2.RegisterHello, principal: str) -> Hello:
    """A checked hello. Raises BadRecordError."""
    try:
        check_label(message.agent, "agent")
        check_label(message.datacenter, "the agent's datacenter")
    except InvalidNameError as error:
        raise BadRecordError(str(error)) from error
    for what, value in (
        ("machine_id", message.machine_id),
        ("boot_id", message.boot_id),
        ("session_id", message.session_id),
    ):
        if not value or len(value) > limits.MACHINE_MAX_CHARS or not value.isprintable():
            raise BadRecordError(
                f"agent {message.datacenter}/{message.agent}: {what} {value[:80]!r} is not 1 to"
                f" {limits.MACHINE_MAX_CHARS} printable characters"
            )
    return Hello(message.agent, message.datacenter, message.machine_id, message.boot_id, message.session_id, principal)
