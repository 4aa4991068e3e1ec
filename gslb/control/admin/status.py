"""What Status answers: the present state of services, tasks and agents as this replica sees it."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bns.codec import encode_health
from bns.model import HealthStatus
from gslb.balancer.explain import load_of
from gslb.balancer.inputs import TaskState
from gslb.model.plan import Plan
from gslb.model.resources import Service
from gslb.v1 import admin_pb2
from gslb.wire.codec import encode_stamp

if TYPE_CHECKING:
    from gslb.control.replica import Replica


def status_of(replica: "Replica") -> admin_pb2.StatusResponse:
    """Everything at this moment."""
    now_s = time.monotonic()
    leader = replica.mirror.leaders.leader
    silent_s = replica.etcd.silent_s()
    demand = replica.planner.demand
    return admin_pb2.StatusResponse(
        replica=replica.settings.replica,
        leader=leader.address if leader else "",
        leading=replica.elector.leadership is not None,
        warm=replica.warm,
        etcd_age_s=math.inf if silent_s is None else silent_s,
        services=[
            _service(replica, service, demand.get(name, {}), now_s)
            for name, service in sorted(replica.world.catalog.services.items())
        ],
        tasks=_tasks(replica),
        agents=_agents(replica, now_s),
        plans_published=replica.publisher.total,
        incarnation=replica.mirror.incarnation,
        quotas=[
            admin_pb2.QuotaStatus(
                service=row.service,
                caller=row.caller,
                unit=row.unit.value,
                quota=row.quota,
                asked=row.asked,
                used=row.used,
                standing=row.standing.name.lower(),
                servers=row.servers,
            )
            for row in replica.quotas.rows()
        ],
    )


def _service(
    replica: "Replica", service: Service, demand: Mapping[str, float], now_s: float
) -> admin_pb2.ServiceStatus:
    published = replica.mirror.plans.plans.get(service.name)
    plan = published.plan if published else None
    status = admin_pb2.ServiceStatus(service=service.name, backends=_backends(replica, service, plan, demand, now_s))
    decision = replica.planner.decision.services.get(service.name)
    if decision is not None:
        status.notes.extend(decision.notes)
    if plan is not None:
        status.stamp.CopyFrom(encode_stamp(plan.stamp))
        for locality, shares in sorted(plan.shares.items()):
            status.localities.add(
                locality=locality,
                demand_rps=demand.get(locality, 0.0),
                datacenters=shares.keys(),
                share=shares.values(),
            )
    return status


def _backends(
    replica: "Replica", service: Service, plan: Plan | None, demand: Mapping[str, float], now_s: float
) -> list[admin_pb2.BackendStatus]:
    decision = replica.planner.decision.services.get(service.name)
    capacity = {site.datacenter: site for site in decision.capacity.datacenters} if decision else {}
    loads = load_of(plan, demand) if plan else {}
    by_job: dict[str, list[TaskState]] = {}
    for state in replica.world.states_of(service.name, now_s, fresh=True):
        by_job.setdefault(state.job, []).append(state)
    statuses = []
    for backend in service.backends:
        states = by_job.get(backend.job, [])
        site = capacity.get(backend.datacenter)
        statuses.append(
            admin_pb2.BackendStatus(
                datacenter=backend.datacenter,
                job=backend.job,
                healthy_tasks=sum(1 for state in states if state.health is HealthStatus.HEALTHY),
                tasks=len(states),
                capacity_rps=site.capacity_rps if site else 0.0,
                load_rps=loads.get(backend.datacenter, 0.0),
                served_rps=math.fsum(state.ok_rps for state in states),
                error_rps=math.fsum(state.error_rps for state in states),
                cpu_utilization=_mean([state.cpu_utilization for state in states]),
                drain=", ".join(site.drains) if site else "",
            )
        )
    return statuses


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _tasks(replica: "Replica") -> list[admin_pb2.TaskStatus]:
    loads, health_of = replica.board.loads, replica.world.health_of
    statuses = []
    for task in replica.store.view.tasks.under("/bns/"):
        status = admin_pb2.TaskStatus(
            task=task.name,
            address=f"[{task.address}]:{task.port}" if ":" in task.address else f"{task.address}:{task.port}",
            health=encode_health(health_of(task.name)),
            cpu_utilization=math.nan,
            agent=task.agent,
        )
        columns = loads.columns_of((task.datacenter, task.agent))
        row = columns.index.get(task.name) if columns else None
        if columns is not None and row is not None:
            status.served_rps = float(columns.ok_rps[row])
            status.error_rps = float(columns.error_rps[row])
            status.cpu_utilization = float(columns.cpu_utilization[row])
        statuses.append(status)
    return statuses


def _agents(replica: "Replica", now_s: float) -> list[admin_pb2.AgentStatus]:
    view = replica.store.view
    statuses = []
    for datacenter, agent in sorted(view.agents.keys() | view.tasks.owners.keys()):
        columns = replica.board.loads.columns_of((datacenter, agent))
        statuses.append(
            admin_pb2.AgentStatus(
                agent=agent,
                datacenter=datacenter,
                alive=view.is_live(datacenter, agent),
                report_age_s=now_s - columns.received_s if columns else math.inf,
                tasks=len(view.tasks.owned_by(datacenter, agent)),
            )
        )
    return statuses
