"""Which tasks of other datacenters this agent probes. PURE.

Every agent computes the same from the same directory, without asking anybody: rendezvous hashing, twice. A task is
witnessed by the few datacenters that score highest for it, and in each of them by the one agent that scores highest. A
datacenter or an agent that goes takes only its own share with it. What exceeds an agent's own limit is cut so that each
datacenter keeps its turn: at least the round-trip time to everywhere stays known.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from agents import limits


@dataclass(frozen=True, slots=True)
class Target:
    """A task that can be probed from afar."""

    name: str
    address: str
    port: int
    agent: str

    @property
    def datacenter(self) -> str:
        return self.name.split("/")[2]


def score(who: str, task: str) -> int:
    """The rendezvous weight of `who` for `task`: the same on every machine."""
    return int.from_bytes(blake2b(f"{who}\0{task}".encode(), digest_size=8).digest())


def agents_by_datacenter(targets: Iterable[Target], own: tuple[str, str]) -> dict[str, set[str]]:
    """datacenter -> agents known to have tasks there, and `own` (datacenter, agent)."""
    found: dict[str, set[str]] = {own[0]: {own[1]}}
    for target in targets:
        if target.agent:
            found.setdefault(target.datacenter, set()).add(target.agent)
    return found


def is_mine(target: Target, own: tuple[str, str], agents: Mapping[str, set[str]], witnesses: int) -> bool:
    """Whether the agent `own` (datacenter, name) is one of the witnesses of `target`."""
    datacenter, agent = own
    if target.datacenter == datacenter:
        return False
    mine = score(datacenter, target.name)
    above = sum(
        1
        for other in agents
        if other not in (datacenter, target.datacenter) and (score(other, target.name), other) > (mine, datacenter)
    )
    if above >= witnesses:
        return False
    return all((score(other, target.name), other) <= (score(agent, target.name), agent) for other in agents[datacenter])


def choose(
    targets: Sequence[Target], own: tuple[str, str], limit: int, witnesses: int = limits.REMOTE_WITNESSES
) -> list[Target]:
    """At most `limit` of `targets` for the agent `own` (datacenter, name), datacenters taking turns."""
    agents = agents_by_datacenter(targets, own)
    mine: dict[str, list[Target]] = {}
    for target in targets:
        if is_mine(target, own, agents, witnesses):
            mine.setdefault(target.datacenter, []).append(target)
    for group in mine.values():
        group.sort(key=lambda target: (score(own[1], target.name), target.name), reverse=True)
    chosen: list[Target] = []
    turn = 0
    while len(chosen) < limit:
        row = [group[turn] for _, group in sorted(mine.items()) if turn < len(group)]
        if not row:
            break
        chosen.extend(row)
        turn += 1
    return chosen[:limit]
