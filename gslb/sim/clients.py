"""RPC clients of one service in one locality: the library's own policy over a flow of requests.

One client stands for all of them: the same view, members and table as `gslb.rpc` builds (`gslb.rpc.policy`), the same
suspicion of a whole datacenter and the same gradual return, but a tick's requests are spread by the table's shares instead
of drawn one by one. What `gslb.rpc.client.core` does with timers and locks is done here once a tick.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gslb.model import limits
from gslb.model.plan import Shares
from gslb.model.resources import Catalog
from gslb.rpc.policy.budget import RetryBudget
from gslb.rpc.policy.failure import Failure
from gslb.rpc.policy.member import Member
from gslb.rpc.policy.presence import Presence
from gslb.rpc.policy.suspicion import Suspicion, Verdict, sample
from gslb.rpc.policy.table import PickTable, build_table, sights_of
from gslb.steer.view import ServiceView

# Packets that vanish are noticed by the connection's keepalive (bns.transport: 10 s, and 5 s for the answer).
KEEPALIVE_S: Final = 15.0


class Contact:
    """How an attempt at a task ends before any server has a say."""

    OK: Final = "ok"
    REFUSED: Final = "refused"  # noticed at once
    SILENT: Final = "silent"  # packets vanish


ContactOf = Callable[[str], str]


@dataclass(slots=True)
class Sent:
    """Where one tick's requests went: rps by task that will see them, and rps that failed on the way."""

    by_task: dict[str, float] = field(default_factory=dict)
    failed_rps: float = 0.0
    retried_rps: float = 0.0


@dataclass(slots=True)
class RpcClient:
    """All clients of `service` in `locality`."""

    service: str
    locality: str
    view: ServiceView | None = None
    members: dict[str, Member] = field(default_factory=dict)
    table: PickTable[Member] | None = None
    probe_at_s: dict[str, float] = field(default_factory=dict)
    silent_since_s: dict[str, float] = field(default_factory=dict)
    budget: RetryBudget = field(default_factory=RetryBudget)
    suspicion: Suspicion = field(default_factory=Suspicion)
    presence: Presence = field(default_factory=Presence)

    def hold(self, view: ServiceView, catalog: Catalog, now_s: float) -> None:
        """The control connection brought another view."""
        if view is self.view:
            return
        self.view = view
        for task, endpoint in view.endpoints.items():
            if task in self.members:
                self.members[task].update(endpoint, now_s)
            else:
                self.members[task] = Member(endpoint)
        for task in self.members.keys() - view.endpoints.keys():
            del self.members[task]
        self._build(catalog, now_s)

    def probe(self, contact: ContactOf, catalog: Catalog, now_s: float, rng: random.Random) -> None:
        """Background probes of the tasks that are out; another look at datacenters that get their share back."""
        changed = self.presence.rising
        for task in [task for task, due_s in self.probe_at_s.items() if due_s <= now_s]:
            member = self.members.get(task)
            if member is None or not member.down:
                del self.probe_at_s[task]
                continue
            member.probed(ok=contact(task) == Contact.OK)
            if not member.down:
                self.suspicion.answered(member.endpoint.datacenter)
            if member.down:
                self.probe_at_s[task] = now_s + member.retry_in_s(Failure.NEVER_SENT, rng.random())
            else:
                del self.probe_at_s[task]
                self.silent_since_s.pop(task, None)
                changed = True
        if changed:
            self._build(catalog, now_s)

    def send(self, rps: float, contact: ContactOf, catalog: Catalog, now_s: float, rng: random.Random) -> Sent:
        """Spreads `rps` of first attempts; what fails at once is tried again elsewhere, within the budget."""
        sent = Sent()
        self._earn(rps, now_s)
        wanted = {"": rps}  # by the datacenter where it was refused
        for attempt in range(limits.ATTEMPTS_MAX):
            out = len(self.probe_at_s)
            refused: dict[str, float] = {}
            for datacenter, part in wanted.items():
                for name, flow in self._spread(part, self._aims(datacenter), sent, contact, now_s, rng).items():
                    refused[name] = refused.get(name, 0.0) + flow
            if len(self.probe_at_s) != out:
                self._build(catalog, now_s)
            failed = sum(refused.values())
            if failed <= 0:
                break
            again = self._granted(failed) if attempt + 1 < limits.ATTEMPTS_MAX else 0.0
            sent.failed_rps += failed - again
            sent.retried_rps += again
            if again <= 0:
                break
            wanted = {datacenter: part * again / failed for datacenter, part in refused.items()}
        return sent

    def _aims(self, refused_at: str) -> Shares:
        """Where to: for what comes back from a datacenter that is gone its heirs, as in `PickTable.pick_again`."""
        if self.table is None:
            return {}
        heirs = self.table.heirs.get(refused_at)
        return heirs.parts() if heirs else self.table.shares

    def take_counts(self) -> Mapping[str, tuple[int, int]]:
        """(ok, failed) by task since the last call: what the demand report tells the control plane."""
        counts = {}
        for task, member in self.members.items():
            if member.ok or member.failed:
                counts[task] = (member.ok, member.failed)
                member.ok = member.failed = 0
        return counts

    def _spread(
        self, rps: float, aims: Shares, sent: Sent, contact: ContactOf, now_s: float, rng: random.Random
    ) -> dict[str, float]:
        """Sends `rps` to datacenters by `aims`; returns what was refused at once, and where (it may go elsewhere)."""
        refused: dict[str, float] = {}
        if self.table is None:
            sent.failed_rps += rps
            return refused
        for group in sorted(self.table.order, key=lambda group: group.datacenter):
            if not aims.get(group.datacenter):
                continue
            total_weight = sum(member.weight for member in group.members)
            part = rps * aims[group.datacenter] / total_weight
            for member in group.members:
                task, flow = member.endpoint.task, part * member.weight
                outcome = contact(task)
                if outcome == Contact.OK:
                    member.note(None)
                    self.suspicion.answered(group.datacenter)
                    sent.by_task[task] = sent.by_task.get(task, 0.0) + flow
                elif outcome == Contact.REFUSED:
                    self._failed(member, Failure.NEVER_SENT, contact, now_s, rng)
                    refused[group.datacenter] = refused.get(group.datacenter, 0.0) + flow
                else:
                    since_s = self.silent_since_s.setdefault(task, now_s)
                    over = now_s - since_s >= KEEPALIVE_S
                    self._failed(member, Failure.BROKEN if over else Failure.TIMED_OUT, contact, now_s, rng)
                    sent.failed_rps += flow
        return refused

    def _failed(self, member: Member, failure: Failure, contact: ContactOf, now_s: float, rng: random.Random) -> None:
        """An attempt failed: what that says of the task, and of its whole datacenter."""
        self._out(member, failure, now_s, rng)
        endpoint = member.endpoint
        unreached = failure is not Failure.TIMED_OUT
        match self.suspicion.failed(endpoint.datacenter, endpoint.task, now_s, unreached=unreached):
            case Verdict.ASK:
                for other in sample(self._others(endpoint.datacenter), rng.random):
                    if contact(other.endpoint.task) == Contact.OK:
                        other.note(None)
                        self.suspicion.answered(endpoint.datacenter)
                    else:
                        self._failed(other, Failure.NEVER_SENT, contact, now_s, rng)
            case Verdict.GONE:
                for other in self._others(endpoint.datacenter):
                    other.down = True
                    other.failures += 1
                    self.probe_at_s[other.endpoint.task] = now_s + other.retry_in_s(Failure.NEVER_SENT, rng.random())
            case Verdict.NOTHING:
                pass

    def _others(self, datacenter: str) -> list[Member]:
        """The tasks of a datacenter that are taken to answer."""
        return [one for one in self.members.values() if one.endpoint.datacenter == datacenter and not one.down]

    def _out(self, member: Member, failure: Failure, now_s: float, rng: random.Random) -> None:
        if member.note(failure):
            self.probe_at_s[member.endpoint.task] = now_s + member.retry_in_s(failure, rng.random())

    def _build(self, catalog: Catalog, now_s: float) -> None:
        if self.view is not None:
            kept = self.presence.look(sights_of(self.view, self.members), now_s)
            self.table = build_table(self.view, self.members, self.locality, catalog, kept)

    def _earn(self, rps: float, now_s: float) -> None:
        # The budget's class counts one request a call; here one call stands for a tick's.
        self.budget.fraction = limits.RETRY_BUDGET_FRACTION * rps
        self.budget.request(now_s)

    def _granted(self, wanted: float) -> float:
        """How much of `wanted` the budget lets through."""
        granted = min(wanted, self.budget.earned)
        self.budget.earned -= granted
        return granted
