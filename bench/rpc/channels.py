"""Channels of our own to a benchmark's servers, with nobody behind them who could tell them anything.

They are what `gslb.rpc.channel` and `gslb.rpc.aio_channel` make, but for the control connection: a view is given, and
after that nothing is heard. So what a channel finds out about its tasks it has found out by itself.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

import grpc
import grpc.aio
from typing_extensions import Unpack

from bench.rpc_pick import SilentFeed
from bench.stage import Stage, Worker
from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Catalog
from gslb.rpc.client.aio_channel import AioServiceChannel
from gslb.rpc.client.api import ChannelOptions, endpoint_options, settings_of
from gslb.rpc.client.sync_channel import ServiceChannel
from gslb.steer.view import ServiceView

SERVICE: Final = "target"
NEAR: Final = "near"  # where the clients are, and where all demand goes
FAR: Final = "far"  # where it goes when the other is lost


@dataclass(slots=True)
class Servers:
    """Server processes by task name, and where they listen."""

    workers: dict[str, Worker]
    endpoints: dict[str, ServiceEndpoint]
    feed: SilentFeed = field(default_factory=SilentFeed)  # of all channels to them, as a process has one

    def tasks(self, datacenter: str) -> list[str]:
        """Those of one datacenter, in order."""
        return sorted(task for task, endpoint in self.endpoints.items() if endpoint.datacenter == datacenter)

    def view(self, *more: ServiceEndpoint) -> ServiceView:
        """Everybody HEALTHY, all demand planned for NEAR, its contingency for FAR."""
        plan = Plan(
            SERVICE,
            Stamp(1, 1, 1),
            shares={NEAR: {NEAR: 1.0}},
            capacity_rps={NEAR: 1000.0, FAR: 1000.0},
            load_rps={NEAR: 500.0},
            contingencies={NEAR: {NEAR: {FAR: 1.0}}},
        )
        endpoints = self.endpoints | {endpoint.task: endpoint for endpoint in more}
        return ServiceView.build(SERVICE, plan=plan, endpoints=endpoints)


def task_name(datacenter: str, number: int) -> str:
    return f"/bns/{datacenter}/bench/{SERVICE}/{number}"


def endpoint_of(task: str, port: int) -> ServiceEndpoint:
    return ServiceEndpoint(task, "127.0.0.1", port, HealthStatus.HEALTHY)


async def start(stage: Stage, task: str) -> tuple[Worker, ServiceEndpoint]:
    """One server of `bench.rpc.target`, listening."""
    worker = await stage.worker(task.strip("/").replace("/", "-"), "bench.rpc.target")
    answer = await worker.ask("start")
    return worker, endpoint_of(task, int(str(answer["port"])))


async def servers(stage: Stage, sizes: dict[str, int]) -> Servers:
    """So many in each datacenter."""
    tasks = [task_name(datacenter, number) for datacenter, count in sizes.items() for number in range(count)]
    started = await asyncio.gather(*(start(stage, task) for task in tasks))
    found = dict(zip(tasks, started, strict=True))
    return Servers({task: pair[0] for task, pair in found.items()}, {task: pair[1] for task, pair in found.items()})


def sync_channel_to(there: Servers, **given: Unpack[ChannelOptions]) -> ServiceChannel:
    """A `gslb.rpc.channel` that holds their view."""
    settings = settings_of(SERVICE, {"locality": NEAR, "caller": "bench", **given})
    options = endpoint_options(None, settings.caller)
    channel = ServiceChannel(settings, there.feed, lambda target: grpc.insecure_channel(target, options=options))
    channel.core.on_view(there.view(), Catalog())
    return channel


def aio_channel_to(there: Servers, **given: Unpack[ChannelOptions]) -> AioServiceChannel:
    """A `gslb.rpc.aio_channel` that holds their view; in the loop that uses it."""
    settings = settings_of(SERVICE, {"locality": NEAR, "caller": "bench", **given})
    options = endpoint_options(None, settings.caller)
    channel = AioServiceChannel(settings, there.feed, lambda target: grpc.aio.insecure_channel(target, options=options))
    channel.core.on_view(there.view(), Catalog())
    return channel
