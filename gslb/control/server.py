"""The process `gslb serve`: sockets, signals, debug pages around one replica."""

import asyncio
import contextlib
import logging
import signal

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]  # the stubs lack it

from bns.transport import add_port, server_options
from gslb.control.admin.servicer import AdminServicer
from gslb.control.ending import StreamEnder
from gslb.control.fanout.servicer import DiscoveryServicer
from gslb.control.ingest.servicer import ReportsServicer
from gslb.control.metrics import registry_of
from gslb.control.quotas import QuotasServicer
from gslb.control.replica import Replica
from gslb.control.settings import Settings
from gslb.control.statusz import status_page
from gslb.ops.http import OpsServer
from gslb.v1 import admin_pb2_grpc, quota_pb2_grpc, report_pb2_grpc

log = logging.getLogger(__name__)

GRACE_S = 0.5
STOP_S = 5.0


async def serve(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Serves until SIGTERM, SIGINT or `stop`. Raises ListenError, TlsError, AddressError, OpsListenError at the start."""
    stop = stop or asyncio.Event()
    ender = StreamEnder()
    server = grpc.aio.server(options=server_options(), interceptors=(ender,))
    address = add_port(server, settings.listen, settings.tls)
    replica = Replica(settings, address)
    reports = ReportsServicer(replica)
    report_pb2_grpc.add_ReportsServicer_to_server(reports, server)
    quota_pb2_grpc.add_QuotasServicer_to_server(QuotasServicer(replica.quotas, replica), server)
    DiscoveryServicer(replica.hub).register(server)
    admin_pb2_grpc.add_AdminServicer_to_server(AdminServicer(replica), server)
    replica.bns.add_to(server)
    checks = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    ops = OpsServer(
        f"gslb serve {settings.replica}",
        registry=registry_of(replica, reports),
        ready=replica.ready,
        status=lambda: status_page(replica),
    )
    http = ops.start(settings.http)
    running = asyncio.create_task(replica.run(), name="replica")
    probes = asyncio.create_task(_tell_health(checks, replica), name="health")
    try:
        await server.start()
        _on_signals(stop)
        log.info("replica %s serves gRPC on %s and debug pages on http://%s", settings.replica, address, http)
        await stop.wait()
        log.info("replica %s stops", settings.replica)
    finally:
        # Streams end and leadership is handed over at once; what is under way has GRACE_S to finish.
        probes.cancel()
        running.cancel()
        await ender.close()
        await asyncio.wait((running, probes), timeout=STOP_S)
        await server.stop(GRACE_S)
        ops.close()


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Only the main thread of the main interpreter may; elsewhere (a test's thread) the caller has `stop`.
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(number, stop.set)


async def _tell_health(checks: health_aio.HealthServicer, replica: Replica) -> None:
    """grpc.health.v1: SERVING once the replica is warm, and ever after."""
    await checks.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    await replica.warmed.wait()
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
