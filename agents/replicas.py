"""The control plane's replicas: one channel to each, shared by everything that is said to it."""

import asyncio
from dataclasses import dataclass

import grpc.aio


@dataclass(frozen=True, slots=True)
class Replica:
    """A control-plane replica."""

    address: str
    channel: grpc.aio.Channel


async def connect(replica: Replica, timeout_s: float) -> bool:
    """Waits for the connection: what is written before would be old when it arrives. False after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            await replica.channel.channel_ready()
    except TimeoutError:
        return False
    return True
