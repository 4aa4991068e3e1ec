"""A client outside the planet's datacenters: asks the backends by RPC at a steady rate and notes what became of it.

It knows nothing but the service's name, its own locality and the control plane's addresses. Each line of its output is one
request: when it ended (seconds of the machine's monotonic clock), the datacenter that answered, and the error if there
was one.
"""

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import TextIO

import click
import grpc
import grpc.aio

import gslb.rpc
from examples.shakespeare.v1 import shakespeare_pb2 as pb
from examples.shakespeare.v1 import shakespeare_pb2_grpc as rpc

SERVICE = "shakespeare-backend"
TIMEOUT_S = 6.0
OUTSTANDING_MAX = 500
WORDS = ("love", "dagger", "rose", "tempest", "crown", "ghost", "blood", "heart", "night", "king")


async def _ask(stub: "rpc.BackendAsyncStub", word: str, out: TextIO) -> None:
    datacenter, error = "-", ""
    try:
        reply = await stub.Search(pb.SearchRequest(word=word, limit=5), timeout=TIMEOUT_S)
        datacenter = reply.served_by.split("/")[2]
    except grpc.aio.AioRpcError as failure:
        error = f"{failure.code().name}: {failure.details()}".replace("\n", " ")[:300]
    out.write(f"{time.monotonic():.4f} {datacenter} {error}\n")
    out.flush()


async def _run(control: str, locality: str, rps: float, out: TextIO) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    running: set[asyncio.Task[None]] = set()
    asked = 0
    async with gslb.rpc.aio_channel(SERVICE, control=control, locality=locality, idempotent=True) as channel:
        stub = rpc.BackendStub(channel)
        due_s = time.monotonic()
        while not ended.is_set():
            due_s = max(due_s + 1 / rps, time.monotonic() - 1.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), max(0.001, due_s - time.monotonic()))
            if len(running) < OUTSTANDING_MAX:
                asked += 1
                task = asyncio.create_task(_ask(stub, WORDS[asked % len(WORDS)], out))
                running.add(task)
                task.add_done_callback(running.discard)
        await asyncio.gather(*running, return_exceptions=True)
    gslb.rpc.close_all()


@click.command()
@click.option("--control", envvar="GSLB_CONTROL", required=True, help="Control-plane replicas, HOST:PORT,...")
@click.option("--locality", required=True, help="Where it is: a datacenter or a client area.")
@click.option("--rps", type=click.FloatRange(0.1, 1000), default=10.0, show_default=True, help="Requests per second.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write to.")
def main(control: str, locality: str, rps: float, out: Path) -> None:
    """Search at a steady rate until SIGTERM."""
    with out.open("w", encoding="utf-8") as file:
        asyncio.run(_run(control, locality, rps, file))


if __name__ == "__main__":
    main()
