"""The frontend: an HTTP request in an RPC in, an HTML page out."""

import time
from urllib.parse import parse_qs

import click
import grpc
import grpc.aio
from typing_extensions import override

import gslb.rpc
from examples.shakespeare import pages
from examples.shakespeare.serving import (
    Instruments,
    Options,
    caller_of,
    from_here,
    run,
    serve_grpc,
    server_options_of,
    service_channel,
)
from examples.shakespeare.v1 import shakespeare_pb2 as pb
from examples.shakespeare.v1 import shakespeare_pb2_grpc as rpc
from gslb.rpc.client.aio_channel import AioServiceChannel

BACKEND_TIMEOUT_S = 6.0
LINES_SHOWN = 20
QUERY_MAX_CHARS = 200


class Frontend(rpc.HttpFrontendServicer):
    """Turns requests into pages."""

    def __init__(self, backends: AioServiceChannel, instruments: Instruments) -> None:
        self._backend = rpc.BackendStub(backends)
        self._instruments = instruments

    @override
    async def Handle(
        self, request: pb.HttpRequest, context: "grpc.aio.ServicerContext[pb.HttpRequest, pb.HttpResponse]"
    ) -> pb.HttpResponse:
        began_s = time.monotonic()
        status, body, error = await self._page(request)
        self._instruments.done(f"{request.method} {request.path[:80]}", caller_of(context), began_s, error)
        headers = [pb.HttpHeader(name="content-type", value="text/html; charset=utf-8")]
        if error:
            headers.append(pb.HttpHeader(name="x-error", value=error[:200]))
        return pb.HttpResponse(status=status, headers=headers, body=body.encode())

    async def _page(self, request: pb.HttpRequest) -> tuple[int, str, str]:
        """(status, HTML, error)."""
        served_by = pages.ServedBy(str(self._instruments.options.task), "", gslb.rpc.trace_id())
        if request.method not in {"GET", "HEAD"}:
            return 405, pages.message_page(f"{request.method[:20]} is not served here.", served_by), ""
        if request.path == "/":
            return 200, pages.home_page(served_by), ""
        if request.path != "/search":
            return 404, pages.message_page(f"There is nothing at {request.path[:100]}.", served_by), ""
        word = parse_qs(request.query[:QUERY_MAX_CHARS]).get("q", [""])[0]
        try:
            reply = await self._backend.Search(
                pb.SearchRequest(word=word, limit=LINES_SHOWN),
                timeout=BACKEND_TIMEOUT_S,
                metadata=from_here(self._instruments.options),
            )
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                return 400, pages.message_page(error.details() or "", served_by), ""
            reason = f"{error.code().name}: {error.details()}"
            return 503, pages.message_page("The search cannot be done now. Please try again.", served_by), reason
        served_by = pages.ServedBy(served_by.frontend, reply.served_by, served_by.trace_id)
        hits = [pages.Hit(place.work, place.line_number, place.line) for place in reply.places]
        return 200, pages.search_page(pages.Result(reply.word, reply.total, hits, reply.degraded), served_by), ""


async def _serve(options: Options) -> None:
    instruments = Instruments(options)
    # A search that is late is asked of a second backend: a reader waits for the page.
    backends = service_channel("shakespeare-backend", options, hedging=True)
    instruments.watch_channel("backends", backends)
    frontend = Frontend(backends, instruments)
    await serve_grpc(instruments, lambda server: rpc.add_HttpFrontendServicer_to_server(frontend, server), [backends])
    await backends.close(None)


@click.command()
@server_options_of
def main(options: Options) -> None:
    """Turn HTTP requests, sent in RPCs, into pages."""
    run(_serve(options))


if __name__ == "__main__":
    main()
