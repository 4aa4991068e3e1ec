"""What every server of the example has in common: options, debug pages, an access log with trace ids, registration.

A server is an asyncio gRPC server whose requests are counted, registered through its machine's agent, and stopped so that
nobody notices (lame duck, serve on until idle, deregister).
"""

import asyncio
import logging
import sys
import time
import zlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import click
import grpc
import grpc.aio
import uvloop
from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector

import gslb.rpc
from bns.errors import AddressError, ListenError
from bns.limits import CPU_CORES_MAX
from bns.names import InvalidNameError, TaskName, parse_task
from bns.transport import add_port, split_address
from gslb.ops.http import OpsListenError, OpsServer
from gslb.rpc.client.aio_channel import AioServiceChannel
from gslb.rpc.client.connection import ControlConnection
from gslb.rpc.metrics import register
from gslb.rpc.server import (
    AioServerInterceptor,
    Gate,
    Goodbye,
    Load,
    Quotas,
    Registration,
    add_aio_health,
    aio_serve_until_signal,
    server_options,
)
from gslb.rpc.statusz import gate_values

log = logging.getLogger("shakespeare")

WAITS = "waits until it is known where the services are that it calls"
CALLER_DATACENTER_KEY = "shakespeare-datacenter"  # metadata: where a request comes from, for the demo's counters
# Requests that a server takes at a time: more than ever are under way at what it is meant to serve, even while one that it
# calls does not answer (50 rps for the 8 s of the longest timeout). So it refuses nobody before it is overloaded itself.
SLOTS = 512
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

F = TypeVar("F", bound=Callable[..., object])


class ServerContext(Protocol):
    """What is used of a servicer context here."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


@dataclass(frozen=True, slots=True)
class Options:
    """What a server is told."""

    task: TaskName
    listen: str
    http: str
    control: str
    agent: str
    log_sample: float
    cpu_cores: float = 1.0  # what it may use; capacity is judged against it
    snapshot: Path | None = None  # what it knows of the services that it calls, kept over a restart
    slots: int = SLOTS  # requests that it serves at a time

    @property
    def service(self) -> str:
        """The service that a task of this job belongs to."""
        return f"shakespeare-{self.task.job}"


def server_options_of(command: F) -> F:
    """The options that every server takes; the command gets `options: Options`."""

    def wrapped(  # noqa: PLR0913 - one parameter an option
        *,
        name: str,
        listen: str,
        http: str,
        control: str,
        agent: str,
        log_sample: float,
        cpu_cores: float,
        snapshot: Path | None,
        slots: int,
        **rest: object,
    ) -> object:
        try:
            task = parse_task(name)
            split_address(listen)
        except (InvalidNameError, AddressError) as error:
            raise click.UsageError(str(error)) from error
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s", stream=sys.stderr
        )
        options = Options(task, listen, http, control, agent, log_sample, cpu_cores, snapshot, slots)
        return command(options=options, **rest)

    wrapped.__doc__ = command.__doc__
    decorated: Callable[..., object] = wrapped
    for option in (
        click.option("--log-sample", type=click.FloatRange(0, 1), default=1.0, show_default=True,
                     help="Share of the requests that are logged; the same ones at every hop. Failures are always."),
        click.option("--snapshot", type=click.Path(dir_okay=False, path_type=Path),
                     help="File for what is known of other services: a restart works while no control plane answers."),
        click.option("--slots", type=click.IntRange(1, 100_000), default=SLOTS, show_default=True,
                     help="Requests served at a time; the others wait, the most critical first, or are refused."),
        click.option("--cpu-cores", type=click.FloatRange(0.01, CPU_CORES_MAX), default=1.0, show_default=True,
                     help="Cores that it may use; utilization is CPU over these."),
        click.option("--agent", envvar="BNS_AGENT", required=True, help="Socket of this machine's agent."),
        click.option("--control", envvar="GSLB_CONTROL", required=True, help="Control-plane replicas, HOST:PORT,..."),
        click.option("--http", default="127.0.0.1:0", show_default=True, help="Debug pages, HOST:PORT."),
        click.option("--listen", required=True, help="HOST:PORT to serve on; others reach it there."),
        click.option("--name", required=True, help="BNS name, /bns/DATACENTER/USER/JOB/TASK."),
    ):  # fmt: skip
        decorated = option(decorated)
    return decorated  # type: ignore[return-value]  # click turns it into a command


@dataclass(slots=True)
class Instruments:
    """Counters and gate of one server, its access log, and what /statusz shows beside them."""

    options: Options
    load: Load = field(default_factory=Load)
    gate: Gate = field(init=False)
    quotas: Quotas = field(init=False)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    status: dict[str, Callable[[], object]] = field(default_factory=dict)
    rpcs: Counter = field(init=False)
    seconds: Histogram = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(self.options.slots)
        self.quotas = Quotas(self.options.service, control=control_of(self.options))
        self.status["gate"] = lambda: gate_values(self.gate.state())
        self.status["quotas"] = self.quotas.explain
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        register(self.registry, loads=[self.load], gates={"main": self.gate}, quotas=[self.quotas])
        self.rpcs = Counter(
            "shakespeare_rpcs", "Requests served.", ["caller_datacenter", "outcome"], registry=self.registry
        )
        self.seconds = Histogram(
            "shakespeare_rpc_seconds", "Time to serve a request.", buckets=BUCKETS_S, registry=self.registry
        )

    def watch_channel(self, name: str, channel: AioServiceChannel) -> None:
        """Shows a channel's state (shares, tasks, picks) on /statusz."""
        self.status[name] = channel.explain

    def done(self, what: str, caller_datacenter: str, began_s: float, error: str = "") -> None:
        """Counts a request and, if its trace id is in the sample, logs it."""
        took_s = time.monotonic() - began_s
        self.rpcs.labels(caller_datacenter or "outside", "error" if error else "ok").inc()
        self.seconds.observe(took_s)
        trace_id = gslb.rpc.trace_id()
        # By the trace id, so that all hops log the same requests.
        if error or zlib.crc32(trace_id.encode()) < self.options.log_sample * 2**32:
            log.info(
                "trace=%s %s from=%s took_ms=%.1f %s", trace_id, what, caller_datacenter, took_s * 1e3, error or "ok"
            )

    def pages(self, ready: Callable[[], tuple[bool, str]]) -> OpsServer:
        """The debug pages."""

        def status() -> Mapping[str, object]:
            return {
                "task": str(self.options.task),
                "serves on": self.options.listen,
                "in flight": self.load.in_flight,
                **{name: show() for name, show in self.status.items()},
            }

        return OpsServer(str(self.options.task), registry=self.registry, ready=ready, status=status)


def caller_of(context: ServerContext) -> str:
    """The datacenter a request came from, as its sender says; "" when it does not."""
    for key, value in context.invocation_metadata() or ():
        if key == CALLER_DATACENTER_KEY and isinstance(value, str):
            return value[:64]
    return ""


def control_of(options: Options) -> ControlConnection:
    """This process's control connection."""
    return gslb.rpc.control(options.control, locality=options.task.datacenter, snapshot_path=options.snapshot)


def service_channel(service: str, options: Options, *, hedging: bool = False) -> AioServiceChannel:
    """A channel to another service of the example; everything here only reads, so all of it may be sent again."""
    return gslb.rpc.aio_channel(
        service,
        control=control_of(options),
        locality=options.task.datacenter,
        caller=options.service,
        idempotent=True,
        hedging=hedging,
    )


def from_here(options: Options) -> tuple[tuple[str, str], ...]:
    """Metadata that says which datacenter a request comes from."""
    return ((CALLER_DATACENTER_KEY, options.task.datacenter),)


def registration_of(options: Options, load: Load) -> Registration:
    """Registers this server through its agent, probed by gRPC health."""
    host, port = split_address(options.listen)
    _, http_port = split_address(options.http)
    return Registration(
        str(options.task), host, port, load=load, agent=options.agent, named_ports={"http": http_port},
        cpu_cores=options.cpu_cores,
    )  # fmt: skip


def run(server: Coroutine[object, object, None]) -> None:
    """Runs a server until it ends, on uvloop: the demo's two dozen share one machine, and it takes a tenth less CPU."""
    uvloop.run(server)


async def known(channels: Iterable[AioServiceChannel], task: TaskName) -> None:
    """Waits until it is known where requests for one of these channels go; there is nothing to wait for without any.

    Before that a server should take no connection: one that starts for the first time while no control plane answers
    would let requests wait until their deadlines. Later on its snapshot knows.
    """
    waiting = [asyncio.ensure_future(channel.channel_ready()) for channel in channels]
    if waiting:
        log.info("%s waits for the services that it calls", task)
        _, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for one in left:
            one.cancel()


async def serve_grpc(
    instruments: Instruments,
    add_servicer: Callable[[grpc.aio.Server], None],
    calls: Iterable[AioServiceChannel] = (),
) -> None:
    """Serves until SIGTERM: listen, debug pages, register, lame duck, leave. Raises click.ClickException.

    `calls`: channels to the services without which it cannot answer.
    """
    options, load = instruments.options, instruments.load
    interceptor = AioServerInterceptor(load, instruments.gate, instruments.quotas)
    server = grpc.aio.server(interceptors=[interceptor], options=server_options())
    add_servicer(server)
    health = add_aio_health(server)
    listening = asyncio.Event()
    pages = instruments.pages(lambda: (listening.is_set(), "" if listening.is_set() else WAITS))
    try:
        pages.start(options.http)
        await known(calls, options.task)
        add_port(server, options.listen)
    except (ListenError, OpsListenError) as error:
        raise click.ClickException(str(error)) from error
    await server.start()
    listening.set()
    registration = registration_of(options, load)
    instruments.status["registration"] = lambda: (
        registration.state.refusal or registration.state.problem or "registered"
    )
    log.info("%s serves on %s", options.task, options.listen)
    await aio_serve_until_signal(server, health, Goodbye(load, registration))
    pages.close()
    gslb.rpc.close_all()
