"""Which task of a datacenter gets a request, where a channel has a policy: a rule for each datacenter, and what it is told.

A channel without one picks by the table alone (`gslb.rpc.policy.p2c`), which is faster and needs nothing from servers. Here
the table says which datacenter, a rule (`gslb.rpc.policy.choice`) which task there, and the rule hears of all that ends.
Rules live as long as the channel: a datacenter that comes back finds what was known of its tasks.

Guarded by the core's lock, all of it; times are monotonic seconds.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Generic, NamedTuple

import grpc

from gslb.model.resources import Service
from gslb.rpc.context import Metadatum
from gslb.rpc.policy.choice import Report, Rng, Rule
from gslb.rpc.policy.p2c import Group, M, group_of
from gslb.rpc.policy.probing import Probing
from gslb.rpc.policy.report import KEY, decode
from gslb.rpc.policy.ring import point
from gslb.rpc.policy.rules import LEAST_REQUEST, PREQUAL, make_rule
from gslb.rpc.policy.suspicion import sample
from gslb.rpc.policy.table import PickTable

# A key may be as long as metadata may be; longer ones than this are told apart by 64 bits of their hash.
KEY_MAX_CHARS: Final = 64
_RING: Final = float(2**64)


class _Told(NamedTuple, Generic[M]):
    """What a rule was assigned last: members are compared by identity."""

    members: tuple[M, ...]
    weights: tuple[float, ...]


class _Mutes(NamedTuple, Generic[M]):
    """The tasks of a datacenter that cannot say how busy they are, and their part of all weight there."""

    part: float
    group: Group[M]


class Chooser(Generic[M]):
    """The rules of one channel, all of one policy."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self._rules: dict[str, Rule[M]] = {}
        self._told: dict[str, _Told[M]] = {}
        self._wordless: set[M] = set()  # asked for their load they said something else
        self._mutes: dict[str, _Mutes[M]] = {}
        self._probing: Probing[M] = Probing()
        kind: type[Rule[M]] = type(make_rule(policy))
        self.listens = kind.listens
        self._asks = kind.asks

    def assign(self, table: PickTable[M], datacenters: Collection[str], now_s: float) -> None:
        """Who may be picked from now on. `datacenters`: those with any task at all; of others everything is forgotten."""
        for datacenter in [name for name in self._rules if name not in datacenters]:
            del self._rules[datacenter], self._told[datacenter]
            self._mutes.pop(datacenter, None)
        for group in table.order:
            self._tell(group, now_s)
        if self._asks:
            present = {member for group in table.order for member in group.members}
            self._probing.keep(present)
            self._wordless &= present

    def _tell(self, group: Group[M], now_s: float) -> None:
        told = _Told(group.members, tuple([member.weight for member in group.members]))
        if self._told.get(group.datacenter) == told:
            # Being told costs a rule more than a look: rings are built, turns are dealt anew.
            return
        self._told[group.datacenter] = told
        if group.datacenter not in self._rules:
            self._rules[group.datacenter] = make_rule(self.policy)
        self._divide(group.datacenter, now_s)

    def _divide(self, datacenter: str, now_s: float) -> None:
        """The rule chooses among those that can say how busy they are.

        It would starve the others, such as servers not yet renewed: they get their share beside it, as by `least_request`.
        """
        told = self._told[datacenter]
        mutes = [member for member in told.members if member in self._wordless]
        able = [member for member in told.members if member not in self._wordless]
        self._rules[datacenter].assign(able or told.members, now_s)
        if mutes:
            part = sum(member.weight for member in mutes) / sum(told.weights)
            self._mutes[datacenter] = _Mutes(part, group_of(datacenter, mutes))
        else:
            self._mutes.pop(datacenter, None)

    def pick(self, table: PickTable[M], tried: Sequence[M], key: str, rng: Rng, now_s: float) -> M:
        """The task for an attempt. `key`: of affinity; all requests with the same one go to one datacenter, too."""
        if not tried:
            group = table.draw(_part(key) if key else rng())
            mutes = self._mutes.get(group.datacenter)
            if mutes is not None and rng() < mutes.part:
                return mutes.group.pick(rng)
            return self._rules[group.datacenter].pick(rng, now_s, key)
        left = table.draw_again(tried, rng)
        rule = self._rules[left.datacenter]
        for _ in range(len(tried) + 1):
            link = rule.pick(rng, now_s, key)
            if link not in tried:
                return link
        # The rule insists on one that was tried: anybody else, then.
        return left.pick(rng)

    def to_ask(self, picked: M, rng: Rng, now_s: float) -> Sequence[M]:
        """After a pick: whom to ask for their load. `answered` or `failed` has to follow for each."""
        if not self._asks:
            return ()
        rule = self._rules.get(picked.endpoint.datacenter)
        if rule is None:
            return ()
        wanted = rule.probes(rng, now_s)
        mutes = self._mutes.get(picked.endpoint.datacenter)
        if mutes is not None:
            # They may have been renewed meanwhile.
            wanted = [*wanted, *sample(mutes.group.members, rng, 1)]
        return self._probing.admit(wanted, now_s)

    def ended(self, link: M, latency_s: float, now_s: float, *, ok: bool) -> None:
        """An attempt there ended."""
        rule = self._rules.get(link.endpoint.datacenter)
        if rule is not None:
            rule.ended(link, latency_s, now_s, ok=ok)

    def reported(self, link: M, report: Report, now_s: float, *, probe: bool = False) -> None:
        """A task said how busy it is."""
        rule = self._rules.get(link.endpoint.datacenter)
        if rule is not None and not link.leaving:
            rule.reported(link, report, now_s, probe=probe)

    def answered(self, link: M, code: grpc.StatusCode, line: bytes, rng: Rng, now_s: float) -> bool:
        """A question for its load ended so; whether it told it."""
        report = decode(line) if code is grpc.StatusCode.OK else None
        # Any other status says that it is busy, stuck or away: then it is well that it gets nothing.
        mute = report is None and code in {grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED}
        if (mute or report is not None) and mute != (link in self._wordless):
            (self._wordless.add if mute else self._wordless.discard)(link)
            if link.endpoint.datacenter in self._told:
                self._divide(link.endpoint.datacenter, now_s)
        if report is None:
            self._probing.failed(link, now_s, rng(), unknown=mute)
            return False
        self._probing.ended(link)
        self.reported(link, report, now_s, probe=True)
        return True

    def knows(self, link: M, now_s: float) -> Mapping[str, float]:
        """What the rule goes by for a task."""
        rule = self._rules.get(link.endpoint.datacenter)
        return rule.knows(link, now_s) if rule is not None else {}


def policy_of(asked: str, service: Service | None) -> str:
    """The policy of a channel: the one that it was made with, else what the service's configuration calls for."""
    return asked or (PREQUAL if service is not None and service.latency_critical else LEAST_REQUEST)


def chooser_for(policy: str, present: Chooser[M] | None) -> Chooser[M] | None:
    """The chooser of a channel from now on; None: it picks by the table alone. Once there was one, there is one."""
    if present is None:
        return None if policy == LEAST_REQUEST else Chooser(policy)
    return present if present.policy == policy else Chooser(policy)


def affinity_of(metadata: Iterable[Metadatum], name: str) -> str:
    """The key of affinity that a request carries in its metadata, short enough to be kept; empty: none."""
    for key, value in metadata:
        if key == name:
            text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
            return text if len(text) <= KEY_MAX_CHARS else f"{point(text):016x}"
    return ""


def report_in(trailers: Iterable[Metadatum]) -> Report | None:
    """The report among the trailers of an answer; None: there is none, or none that can be used."""
    for key, value in trailers:
        if key == KEY:
            return decode(value)
    return None


def _part(key: str) -> float:
    """Where a key lies in [0, 1) when datacenters are dealt out; independent of its place on a ring."""
    return min(point(f"datacenter {key}") / _RING, 1.0 - 2.0**-53)
