"""From a view to the table that each pick reads: shares of datacenters, and the tasks there. PURE.

A table is built when something changes (plan, endpoints, a task that stopped answering) and read with every request, so
all exceptions are worked out here: a pick is two or three draws.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from types import MappingProxyType
from typing import Generic

from gslb.model.plan import Shares
from gslb.model.resources import Catalog
from gslb.rpc.policy.p2c import Group, M, group_of, without
from gslb.rpc.policy.presence import ROOM_DEFAULT, Sight
from gslb.steer.choice import ceded, datacenter_order, heirs, live_shares, shares_for
from gslb.steer.table import ShareTable, table_of
from gslb.steer.view import ServiceView


@dataclass(frozen=True, slots=True)
class PickTable(Generic[M]):
    """`groups[i]` gets the draws below `cumulative[i]`; `order` has every datacenter, best first."""

    groups: tuple[Group[M], ...]
    cumulative: tuple[float, ...]
    order: tuple[Group[M], ...]
    shares: Shares
    panic: bool = False  # no task is known to be well: these are tried because nothing better is left
    # Of each datacenter with a share and nobody there who answers: who gets what went there.
    heirs: Mapping[str, ShareTable] = field(default_factory=dict)

    def pick(self, rng: Callable[[], float]) -> M:
        """The task for a first attempt."""
        groups = self.groups
        if len(groups) == 1:
            return groups[0].pick(rng)
        return self.draw(rng()).pick(rng)

    def draw(self, u: float) -> Group[M]:
        """The datacenter for a first attempt; `u` in [0, 1), the same gives the same while the shares are the same."""
        groups = self.groups
        drawn = bisect_right(self.cumulative, u)
        return groups[drawn if drawn < len(groups) else -1]

    def has_others(self, tried: Sequence[M]) -> bool:
        """Whether there is a task besides those tried."""
        return any(without(group, tried) is not None for group in self.order)

    def pick_again(self, tried: Sequence[M], rng: Callable[[], float]) -> M:
        """The task for a retry."""
        return self.draw_again(tried, rng).pick(rng)

    def draw_again(self, tried: Sequence[M], rng: Callable[[], float]) -> Group[M]:
        """The tasks that a retry may go to: others of the same datacenter, then those of another one, then any.

        When the whole datacenter is gone, all that was under way there comes back at once: it goes to the heirs, as what
        is sent from now on does. Where it is nearest or largest there may be no room for it.
        """
        last = tried[-1].endpoint.datacenter
        datacenters = {member.endpoint.datacenter for member in tried}
        if last in self.heirs:
            heir = self.heirs[last].pick(rng())
            if heir not in datacenters and (left := _untried(self.order, heir, tried)):
                return left
        # The second attempt stays near, the third leaves: what failed twice in a datacenter may well fail a third time.
        stay = len(tried) == 1
        here = [group for group in self.order if group.datacenter == last]
        away = [group for group in self.order if group.datacenter not in datacenters]
        rest = [group for group in self.order if group.datacenter in datacenters and group.datacenter != last]
        for group in [*here, *away, *rest] if stay else [*away, *here, *rest]:
            if left := without(group, tried):
                return left
        return self.draw(rng())


def _untried(groups: Sequence[Group[M]], datacenter: str, tried: Sequence[M]) -> Group[M] | None:
    """The tasks of a datacenter that were not tried; None: there is none."""
    return next((without(group, tried) for group in groups if group.datacenter == datacenter), None)


def sights_of(view: ServiceView, members: Mapping[str, M]) -> dict[str, Sight]:
    """What is seen of each datacenter that may serve."""
    plan = view.plan
    sights = {}
    for datacenter, group in view.serving.items():
        here = [members[endpoint.task] for endpoint in group if endpoint.task in members]
        capacity = plan.capacity_rps.get(datacenter, 0.0) if plan else 0.0
        load = plan.load_rps.get(datacenter, 0.0) if plan else 0.0
        room = capacity / load if capacity > 0 and load > 0 else ROOM_DEFAULT
        answering = [member for member in here if not member.down]
        proved = any(member.proved for member in answering)
        sights[datacenter] = Sight(len(here), len(answering), room, proved)
    return sights


def build_table(
    view: ServiceView,
    members: Mapping[str, M],
    locality: str,
    catalog: Catalog,
    kept: Mapping[str, float] = MappingProxyType({}),
) -> PickTable[M] | None:
    """The table of a client in `locality`; `members` by task name. None while there is no plan or no endpoint.

    `kept`: datacenters that keep only this part of their share for now (`gslb.rpc.policy.presence`).

    Tasks that do not answer (`down`, `stalled`), or fail much more than others (`ejected`), are left out as if the control
    plane had said so; when that leaves nobody, they are in again: being sure that all is lost is no reason to fail what
    might succeed.
    """
    if view.plan is None or not view.serving:
        return None
    serving = [endpoint for group in view.serving.values() for endpoint in group if endpoint.task in members]
    answering = [endpoint for endpoint in serving if not members[endpoint.task].down]
    usable = [endpoint for endpoint in answering if not members[endpoint.task].set_aside] or answering or serving
    if not usable:
        return None
    if len(usable) < len(view.endpoints):
        # The same steps as for the whole view, contingency included, over those that can be used.
        view = view.with_endpoints({endpoint.task: endpoint for endpoint in usable})
    shares = live_shares(view, locality, catalog)
    if answering and kept:
        shares = ceded(view, locality, shares, kept, catalog)
    groups = {
        datacenter: group_of(datacenter, [members[endpoint.task] for endpoint in group])
        for datacenter, group in view.serving.items()
    }
    order = tuple(groups[name] for name in datacenter_order(view, locality, catalog))
    used = sorted((name, share) for name, share in shares.items() if share > 0 and name in groups)
    if not used:
        used = [(order[0].datacenter, 1.0)]
    sums = list(accumulate(share for _, share in used))
    lost = [name for name, share in shares_for(view, locality, catalog).items() if share > 0 and name not in groups]
    tables = {name: table_of(heirs(view, locality, name, catalog)) for name in lost}
    return PickTable(
        groups=tuple(groups[name] for name, _ in used),
        cumulative=tuple(part / sums[-1] for part in sums),
        order=order,
        shares={name: share / sums[-1] for name, share in used},
        panic=view.panic or not answering,
        heirs={name: table for name, table in tables.items() if table is not None},
    )
