"""/statusz of a replica: what one looks at first when something is wrong."""

import time
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gslb.control.replica import Replica

# A page is read by people.
ROWS_MAX = 200


def status_page(replica: "Replica") -> Mapping[str, object]:
    """Called from the debug server's threads: it only reads."""
    leader = replica.mirror.leaders.leader
    view = replica.store.view
    return {
        "replica": {
            "name": replica.settings.replica,
            "address": replica.address,
            "roles": ", ".join(sorted(replica.settings.roles)),
            "warm": replica.warm,
            "why not": replica.why_cold,
            "leading": replica.elector.leadership is not None,
            "leader": f"{leader.replica} at {leader.address}" if leader else "none",
            "incarnation": replica.mirror.incarnation,
        },
        "etcd": {
            "endpoints": ", ".join(replica.etcd.endpoints),
            "seconds since its last answer": replica.etcd_silent_s,
            "revision seen": replica.mirror.revision,
        },
        "planning": {
            "rounds": replica.planner.steps,
            "last round took, s": replica.planner.step_s,
            "plans published": replica.publisher.total,
            "alarms": list(replica.planner.decision.alarms[:ROWS_MAX]),
        },
        "services": _services(replica),
        "quotas": _quotas(replica),
        "drains": [
            {"name": drain.name, "scope": drain.scope.value, "target": drain.target, "until": drain.expires_at}
            for drain in islice(replica.world.catalog.drains.values(), ROWS_MAX)
        ],
        "registered": {"tasks": len(view.tasks), "agents alive": len(view.agents)},
        "agents": _agents(replica),
        "readers": _readers(replica),
    }


def _services(replica: "Replica") -> list[Mapping[str, object]]:
    rows: list[Mapping[str, object]] = []
    for name, decision in islice(dict(replica.planner.decision.services).items(), ROWS_MAX):
        published = replica.mirror.plans.plans.get(name)
        rows.append(
            {
                "service": name,
                "plan": ".".join(map(str, published.plan.stamp)) if published else "none",
                "demand rps": sum(replica.planner.demand.get(name, {}).values()),
                "capacity rps": decision.capacity.total_rps,
                "notes": "; ".join(decision.notes),
            }
        )
    return rows


def _quotas(replica: "Replica") -> list[Mapping[str, object]]:
    return [
        {
            "service": row.service,
            "caller": row.caller,
            "unit": row.unit.value,
            "quota": row.quota,
            "asked": row.asked,
            "used": row.used,
            "standing": row.standing.name.lower(),
            "servers": row.servers,
        }
        for row in islice(replica.quotas.rows(), ROWS_MAX)
    ]


def _agents(replica: "Replica") -> list[Mapping[str, object]]:
    now_s = time.monotonic()
    return [
        {
            "agent": f"{datacenter}/{agent}",
            "tasks": len(columns.tasks),
            "report age, s": now_s - columns.received_s,
            "machine utilization": columns.machine_utilization,
        }
        for (datacenter, agent), columns in islice(dict(replica.board.loads.agents).items(), ROWS_MAX)
    ]


def _readers(replica: "Replica") -> list[Mapping[str, object]]:
    return [
        {
            "subscriber": stream.request.subscriber[:100],
            "services": "all" if stream.request.all_services else len(stream.services),
            "locality": stream.request.locality[:100],
        }
        for stream in islice(list(replica.hub.streams), ROWS_MAX)
    ]
