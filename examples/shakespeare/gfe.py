"""The GFE: terminates HTTP, maps host and path to a service, and sends the request on in an RPC to wherever there is room.

It counts what arrives by client area, refused or not: that is the demand which DNS is steered by. Drained, it goes on
proxying (to other datacenters' frontends: the plan says so) and closes keep-alive connections, so that browsers ask DNS again.
"""

import asyncio
import contextlib
import ipaddress
import signal
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import click
import fastapi
import grpc
import grpc.aio
import uvicorn
from typing_extensions import override

import gslb.rpc
from bns.model import HealthStatus, ProbeKind, ProbeSpec
from bns.transport import split_address
from examples.shakespeare.serving import (
    WAITS,
    Instruments,
    Options,
    control_of,
    from_here,
    known,
    log,
    run,
    server_options_of,
    service_channel,
)
from examples.shakespeare.v1 import shakespeare_pb2 as pb
from examples.shakespeare.v1 import shakespeare_pb2_grpc as rpc
from gslb.geo.cidr import UNMATCHED, CidrMap
from gslb.model.resources import Catalog
from gslb.ops.http import OpsListenError
from gslb.rpc.client.connection import ControlConnection
from gslb.rpc.server import AsgiMiddleware, Goodbye, Registration
from gslb.rpc.server.asgi import App, Receive, Scope, Send

FRONTEND_TIMEOUT_S = 8.0
BODY_MAX_BYTES = 1_000_000
QUIET_POLL_S = 0.1
# Longer than browsers and proxies keep idle connections: the side that closes first never loses a request.
KEEP_ALIVE_S = 75
# What of a browser's headers the frontends get to see.
FORWARDED = frozenset({"accept", "accept-language", "cookie", "user-agent", "content-type"})
DEFAULT_ROUTES = ("www.shakespeare.example/=shakespeare-frontend", "*/=shakespeare-frontend")


@dataclass(frozen=True, slots=True)
class Route:
    """Requests for `host` (`*`: any) below `path` go to `service`."""

    host: str
    path: str
    service: str

    @classmethod
    def parse(cls, text: str) -> "Route":
        """`HOST/PATH=SERVICE`. Raises click.BadParameter."""
        where, equals, service = text.partition("=")
        host, slash, path = where.partition("/")
        if not (equals and slash and host and service):
            raise click.BadParameter(f"route {text!r}: write HOST/PATH=SERVICE, such as www.example.org/=web")
        return cls(host.lower(), f"/{path}", service)

    def matches(self, host: str, path: str) -> bool:
        return self.host in {"*", host} and path.startswith(self.path)


def route_for(routes: tuple[Route, ...], host: str, path: str) -> Route | None:
    """The route of a request: an exact host before `*`, a longer path before a shorter one."""
    found = [route for route in routes if route.matches(host.partition(":")[0].lower(), path)]
    return max(found, key=lambda route: (route.host != "*", len(route.path)), default=None)


class Edge:
    """Where browsers are, and whether this GFE is drained: both as the control plane says."""

    def __init__(self, control: ControlConnection, options: Options) -> None:
        self._control = control
        self._options = options
        self._catalog: Catalog | None = None
        self._map = CidrMap()
        self.leaving = False
        control.view(options.service)

    def locality_of(self, host: str) -> str:
        """The client area of an address; one that no area has counts as being here."""
        catalog = self._control.catalog()
        if catalog is not self._catalog:
            self._catalog, self._map = catalog, CidrMap.build(catalog.areas.values())
        try:
            locality = self._map.lookup(ipaddress.ip_address(host)).locality
        except ValueError:
            locality = UNMATCHED
        return locality or self._options.task.datacenter

    def arrived(self, host: str) -> None:
        """A request came in: it is demand of its client's area."""
        self._control.report_edge(self._options.service, self.locality_of(host))

    def draining(self) -> bool:
        """Whether browsers should go elsewhere."""
        view = self._control.view(self._options.service)
        mine = view.endpoints.get(str(self._options.task)) if view else None
        return self.leaving or (mine is not None and mine.health is HealthStatus.DRAINING)


class Gfe:
    """Sends HTTP requests on as RPCs."""

    def __init__(self, routes: tuple[Route, ...], edge: Edge, instruments: Instruments) -> None:
        options = instruments.options
        self._routes = routes
        self._edge = edge
        self._instruments = instruments
        self._channels = {service: service_channel(service, options) for service in {route.service for route in routes}}
        self._stubs = {service: rpc.HttpFrontendStub(channel) for service, channel in self._channels.items()}
        for service, channel in self._channels.items():
            instruments.watch_channel(service, channel)

    async def handle(self, request: fastapi.Request) -> fastapi.Response:
        """One HTTP request."""
        began_s = time.monotonic()
        host = request.client.host if request.client else ""
        response, error = await self._forward(request, host)
        self._instruments.done(
            f"{request.method} {request.url.path[:80]}", self._edge.locality_of(host), began_s, error
        )
        response.headers["x-trace-id"] = gslb.rpc.trace_id()
        if self._edge.draining():
            response.headers["connection"] = "close"
        return response

    async def known(self) -> None:
        """Waits until it is known where to send requests for one of the services."""
        await known(self._channels.values(), self._instruments.options.task)

    async def close(self) -> None:
        """Ends the connections."""
        for channel in self._channels.values():
            await channel.close(None)

    async def _forward(self, request: fastapi.Request, client: str) -> tuple[fastapi.Response, str]:
        name = request.headers.get("host", "")
        route = route_for(self._routes, name, request.url.path)
        if route is None:
            return fastapi.Response(f"no service is known for {name[:100]}\n", 404, media_type="text/plain"), ""
        body = await _body(request)
        if body is None:
            return fastapi.Response(f"more than {BODY_MAX_BYTES} bytes\n", 413, media_type="text/plain"), ""
        headers = [pb.HttpHeader(name=k, value=v) for k, v in request.headers.items() if k in FORWARDED]
        message = pb.HttpRequest(
            method=request.method, host=name, path=request.url.path, query=request.url.query, headers=headers, body=body,
            client_address=client,
        )  # fmt: skip
        try:
            reply = await self._stubs[route.service].Handle(
                message, timeout=FRONTEND_TIMEOUT_S, metadata=from_here(self._instruments.options)
            )
        except grpc.aio.AioRpcError as error:
            reason = f"{route.service}: {error.code().name}: {error.details()}"
            return fastapi.Response("no server can answer now\n", 503, {"x-error": _header(reason)}), reason
        failure = next((header.value for header in reply.headers if header.name == "x-error"), "")
        kept = {header.name: _header(header.value) for header in reply.headers}
        return fastapi.Response(reply.body, reply.status, kept), failure


class Door:
    """The ASGI application that browsers meet first: counts them as demand, whatever becomes of them."""

    def __init__(self, app: App, edge: Edge) -> None:
        self._app = app
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            client = cast("tuple[str, int] | None", scope.get("client"))
            self._edge.arrived(client[0] if client else "")
            # How critical a request is, and which it is, is not for browsers to say.
            headers = cast(Iterable[tuple[bytes, bytes]], scope["headers"])
            scope = {**scope, "headers": [header for header in headers if not header[0].lower().startswith(b"gslb-")]}
        await self._app(scope, receive, send)


async def _body(request: fastapi.Request) -> bytes | None:
    """The request's body; None when it is too long."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_MAX_BYTES:
            return None
    return bytes(body)


def _header(text: str) -> str:
    """Fit for a header's value: printable ASCII on one line."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:300]


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: we take leave first."""

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(options: Options, routes: tuple[Route, ...]) -> None:
    instruments = Instruments(options)
    edge = Edge(control_of(options), options)
    gfe = Gfe(routes, edge, instruments)
    host, port = split_address(options.listen)
    listening = asyncio.Event()
    pages = instruments.pages(lambda: _ready(edge, listening))
    try:
        http = pages.start(options.http)
    except OpsListenError as error:
        raise click.ClickException(str(error)) from error
    await gfe.known()
    app = fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=_lifespan)
    app.add_api_route("/{path:path}", gfe.handle, methods=["GET", "HEAD", "POST"])
    guarded = AsgiMiddleware(cast(App, app), instruments.load, instruments.gate, instruments.quotas)
    config = uvicorn.Config(
        Door(guarded, edge), host=host, port=port, log_level="warning", access_log=False, server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )  # fmt: skip
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn says so in no other way
        await asyncio.sleep(0.01)
    if serving.done():
        raise click.ClickException(f"cannot serve HTTP on {options.listen}: is the port in use?")
    listening.set()
    probe = ProbeSpec(kind=ProbeKind.HTTP, path="/healthz", port_name="http")
    registration = Registration(
        str(options.task), host, port, load=instruments.load, agent=options.agent, probe=probe,
        named_ports={"http": split_address(http)[1]}, cpu_cores=options.cpu_cores,
    )  # fmt: skip
    log.info("%s serves HTTP on %s", options.task, options.listen)
    await _until_signal()
    edge.leaving = True
    await _take_leave(registration, Goodbye(instruments.load, registration))
    server.should_exit = True
    await serving
    await gfe.close()
    pages.close()
    gslb.rpc.close_all()


def _ready(edge: Edge, listening: asyncio.Event) -> tuple[bool, str]:
    if edge.leaving:
        return False, "leaving"
    return listening.is_set(), "" if listening.is_set() else WAITS


@contextlib.asynccontextmanager
async def _lifespan(_app: fastapi.FastAPI) -> AsyncIterator[None]:
    yield


async def _until_signal() -> None:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    await asked.wait()


async def _take_leave(registration: Registration, goodbye: Goodbye) -> None:
    """Lame duck, proxy on until nobody asks or the limit, deregister."""
    registration.lame_duck()
    since_s = time.monotonic()
    while not goodbye.is_quiet(since_s, time.monotonic()):  # noqa: ASYNC110 - the load is counted by threads
        await asyncio.sleep(QUIET_POLL_S)
    await asyncio.to_thread(registration.close)


@click.command()
@click.option(
    "--route",
    "routes",
    multiple=True,
    default=DEFAULT_ROUTES,
    show_default=True,
    help="HOST/PATH=SERVICE; * is any host.",
)
@server_options_of
def main(options: Options, routes: tuple[str, ...]) -> None:
    """Terminate HTTP and send requests on to services."""
    run(_serve(options, tuple(Route.parse(text) for text in routes)))


if __name__ == "__main__":
    main()
