"""The backend: a word in, its places with their lines out. Reads its datacenter's tablet, another's when that fails.

When its gate says that it is overloaded, it answers with what it remembers (`Searcher.search_less`), and says so.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import grpc
import grpc.aio
from typing_extensions import override

import gslb.rpc
from examples.shakespeare import words
from examples.shakespeare.knobs import CPU_MS_MAX, Knobs, KnobsFile
from examples.shakespeare.search import Searcher
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

TABLET_TIMEOUT_S = 4.0


class Backend(rpc.BackendServicer):
    """Answers searches."""

    def __init__(self, tablets: AioServiceChannel, instruments: Instruments, knobs: KnobsFile) -> None:
        self._tablet = rpc.TabletStub(tablets)
        self._instruments = instruments
        self._knobs = knobs
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
        knobs = self._knobs.now
        if knobs.errs():
            self._instruments.done(f"Search word={word}", caller, began_s, "knob: error_rate")
            await context.abort(knobs.error_code, "an error on purpose: see --knobs")
        knobs.burn()
        degraded = gslb.rpc.degraded()
        search = self._searcher.search_less if degraded else self._searcher.search
        try:
            hits = await search(word, request.limit)
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
            degraded=degraded,
        )


async def _serve(options: Options, knobs: KnobsFile) -> None:
    instruments = Instruments(options)
    instruments.status["knobs"] = lambda: str(knobs.now)
    following = asyncio.create_task(knobs.follow(), name="knobs")
    tablets = service_channel("shakespeare-tablet", options)
    instruments.watch_channel("tablets", tablets)
    backend = Backend(tablets, instruments, knobs)
    await serve_grpc(instruments, lambda server: rpc.add_BackendServicer_to_server(backend, server), [tablets])
    following.cancel()
    await tablets.close(None)


@click.command()
@click.option(
    "--knobs",
    type=click.Path(dir_okay=False, path_type=Path),
    help='File that is read each second: {"cpu_ms": 8, "error_rate": 0.5}.',
)
@click.option(
    "--cpu-ms-per-request",
    type=click.FloatRange(0, CPU_MS_MAX),
    default=0.0,
    show_default=True,
    help="CPU that each request uses up beside its work, for demonstrations.",
)
@server_options_of
def main(options: Options, knobs: Path | None, cpu_ms_per_request: float) -> None:
    """Answer where a word occurs."""
    run(_serve(options, KnobsFile(knobs, Knobs(cpu_ms_per_request))))


if __name__ == "__main__":
    main()
