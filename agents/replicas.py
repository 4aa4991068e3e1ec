"""The control plane's replicas: one channel to each, shared by all that is said to it; the way back after a failure."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc.aio

from agents.backoff import Backoff

log = logging.getLogger(__name__)

DETAILS_MAX_CHARS = 500


class Ended(Exception):  # noqa: N818  not an error of ours: the peer is gone or will not have us
    """A conversation is over; the message says why."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A control-plane replica."""

    address: str
    channel: grpc.aio.Channel


async def connect(replica: Replica, timeout_s: float) -> None:
    """Waits for the connection: what is written before would be old when it arrives. Raises Ended."""
    try:
        async with asyncio.timeout(timeout_s):
            await replica.channel.channel_ready()
    except TimeoutError:
        raise Ended(f"no connection within {timeout_s:g} s") from None


async def converse(attempt: Callable[[], Awaitable[bool]], failed: Callable[[str], None], backoff: Backoff) -> None:
    """Calls `attempt` until it returns True; after each failure says why and waits.

    Whatever a peer does, it does not end the agent.
    """
    while True:
        try:
            if await attempt():
                return
            problem = "the stream ended"
        except Ended as ended:
            problem = str(ended)
        except grpc.aio.AioRpcError as error:
            problem = f"{error.code().name}: {(error.details() or '')[:DETAILS_MAX_CHARS]}"
        except asyncio.InvalidStateError:
            problem = "the stream ended"  # gRPC's word for writing to a stream that is over
        except Exception as error:
            log.exception("a conversation with the control plane failed in an unforeseen way")
            problem = repr(error)[:DETAILS_MAX_CHARS]
        failed(problem)
        await asyncio.sleep(backoff.next_s())


async def both(one: Awaitable[None], other: Awaitable[None]) -> None:
    """Runs the two sides of a stream until the first of them ends, and raises what it raised."""
    sides = {asyncio.ensure_future(one), asyncio.ensure_future(other)}
    try:
        done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        for side in done:
            side.result()
    finally:
        for side in sides:
            side.cancel()
        await asyncio.gather(*sides, return_exceptions=True)
