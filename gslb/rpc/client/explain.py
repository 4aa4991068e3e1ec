"""Where a channel's calls go and why, as plain values for people, /statusz and JSON."""

from collections.abc import Mapping

from gslb.model.criticality import Criticality
from gslb.rpc.client.core import L, ServiceCore
from gslb.rpc.client.link import Link
from gslb.rpc.client.protection import Protection


def _task(link: Link, usable: frozenset[str], knows: Mapping[str, float]) -> dict[str, object]:
    return {
        "task": link.endpoint.task,
        "target": link.target,
        "datacenter": link.endpoint.datacenter,
        "health": link.endpoint.health.name,
        "weight": link.weight,
        "usable": link.endpoint.task in usable,
        "down": link.down,
        "ejected": link.ejected,
        "stalled": link.stalled,
        "failures": link.failures,
        "in_flight": link.in_flight,
        "burden": round(link.burden, 2),
        "picks": link.picks,
        "knows": {name: round(value, 6) for name, value in knows.items()},
    }


def _protection(protection: Protection) -> dict[str, object]:
    return {
        "sent_fraction": {level.name: round(protection.sent_fraction(level), 4) for level in Criticality},
        "held_back": {level.name: protection.held_back(level) for level in Criticality},
        "ejected": sorted(protection.ejected),
        "hedges": protection.hedges,
    }


def explain(core: ServiceCore[L]) -> dict[str, object]:
    """Shares in use, stamp and age of the plan, every task with its state, and counts since the channel was made."""
    view, table, settings = core.view(), core.table, core.settings
    groups = table.order if table is not None else ()
    usable = frozenset(member.endpoint.task for group in groups for member in group.members)
    return {
        "service": settings.service,
        "locality": settings.locality,
        "caller": settings.caller,
        "policy": core.policy(),
        "affinity": settings.affinity,
        "shares": dict(table.shares) if table is not None else {},
        "datacenters": [group.datacenter for group in groups],
        "kept": {name: round(part, 4) for name, part in core.kept().items()},
        "panic": table.panic if table is not None else False,
        "reason": core.reason() if table is None else "",
        "stamp": tuple(view.plan.stamp) if view is not None and view.plan is not None else None,
        "notes": list(view.plan.notes) if view is not None and view.plan is not None else [],
        "subsets": core.subsets.describe(),
        "endpoints": [_task(link, usable, core.knows(link)) for link in core.links()],
        "requests": {level.name: count for level, count in zip(Criticality, core.total_attempts(), strict=True)},
        "retries": core.counts.retries,
        "retries_refused": core.counts.retries_refused,
        "no_endpoint": core.counts.no_endpoint,
        "failures": core.counts.failures,
        **_protection(core.protection()),
        "reports": core.counts.reports,
        "probes": core.counts.probes,
        "probes_failed": core.counts.probes_failed,
        "control": core.feed_state(),
    }
