"""The backend: a word in, its places with their lines out. Reads its datacenter's tablet, another's when that fails."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import click
import grpc
import grpc.aio
from typing_extensions import override

from examples.shakespeare import words
from examples.shakespeare.search import Searcher
from examples.shakespeare.serving import (
    Instruments,
    Options,
    caller_of,
    from_here,
    serve_grpc,
    server_options_of,
    service_channel,
)
from examples.shakespeare.v1 import shakespeare_pb2 as pb
from examples.shakespeare.v1 import shakespeare_pb2_grpc as rpc
from gslb.rpc.client.aio_channel import AioServiceChannel

TABLET_TIMEOUT_S = 4.0


class Backend(rpc.BackendServicer):
    """Answers searches."""

    def __init__(self, tablets: AioServiceChannel, instruments: Instruments) -> None:
        self._tablet = rpc.TabletStub(tablets)
        self._instruments = instruments
        self._searcher = Searcher(self._read_rows)

    async def _read_rows(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        metadata = from_here(self._instruments.options)
        reply = await self._tablet.ReadRows(pb.ReadRowsRequest(keys=keys), timeout=TABLET_TIMEOUT_S, metadata=metadata)
        return {row.key: row.value for row in reply.rows}

    @override
    async def Search(
        self, request: pb.SearchRequest, context: "grpc.aio.ServicerContext[pb.SearchRequest, pb.SearchResponse]"
    ) -> pb.SearchResponse:
        began_s, caller = time.monotonic(), caller_of(context)
        word = words.normalise(request.word)
        if not word:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{request.word[:60]!r} is not one word")
        try:
            hits = await self._searcher.search(word, request.limit)
        except grpc.aio.AioRpcError as error:
            self._instruments.done(f"Search word={word}", caller, began_s, f"tablet: {error.code().name}")
            await context.abort(error.code(), f"tablet: {error.details()}")
            raise
        self._instruments.done(f"Search word={word}", caller, began_s)
        return pb.SearchResponse(
            word=hits.word,
            total=hits.total,
            places=[pb.Place(work=p.work, line_number=p.line_number, line=p.line) for p in hits.places],
            served_by=str(self._instruments.options.task),
        )


async def _serve(options: Options) -> None:
    instruments = Instruments(options)
    tablets = service_channel("shakespeare-tablet", options)
    instruments.watch_channel("tablets", tablets)
    backend = Backend(tablets, instruments)
    await serve_grpc(instruments, lambda server: rpc.add_BackendServicer_to_server(backend, server))
    await tablets.close(None)


@click.command()
@server_options_of
def main(options: Options) -> None:
    """Answer where a word occurs."""
    asyncio.run(_serve(options))


if __name__ == "__main__":
    main()
