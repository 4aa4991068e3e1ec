"""Keeping a lease alive, and noticing in time when it is not.

The lease is counted as lost as soon as its time has passed since the last renewal that *we sent* and etcd confirmed:
never later than etcd itself expires it. A holder that is paused wakes up to a lost lease; what it writes afterwards is
stopped by fencing, not by this.
"""

import asyncio
import logging
from collections.abc import Callable

from grpc import aio

from bns.etcd.backoff import Backoff
from bns.etcd.errors import LeaseLost
from bns.etcd.methods import LEASE_KEEP_ALIVE
from bns.etcd.pool import Pool
from bns.etcd.v3 import rpc_pb2 as pb

log = logging.getLogger(__name__)

# A lease is renewed three times in its life, so that one lost renewal costs nothing.
RENEWALS_PER_TTL = 3
ANSWER_TIMEOUT_MAX_S = 2.0


class _StreamEndedError(Exception):
    """The renewal stream is of no use any more; another one may be."""


async def keep(pool: Pool, lease: int, ttl_s: float, on_lost: Callable[[int], None] | None) -> None:
    """Renew `lease` until cancelled, which leaves it to expire, or until it is lost: then call `on_lost`."""
    loop = asyncio.get_running_loop()
    backoff = Backoff(pool.rng, first_s=0.05, most_s=min(0.5, ttl_s / 8))
    try:
        async with asyncio.timeout_at(loop.time() + ttl_s) as limit:
            while not pool.closed:
                await _renew_while_it_works(pool, lease, limit, backoff)
                await asyncio.sleep(backoff.next_s())
            return
    except (TimeoutError, LeaseLost) as error:
        log.warning("etcd lease %x is lost (%s)", lease, str(error) or "no renewal in time")
    if on_lost is not None:
        on_lost(lease)


async def _renew_while_it_works(pool: Pool, lease: int, limit: asyncio.Timeout, backoff: Backoff) -> None:
    """One stream at the current member, until it fails. Raises LeaseLost."""
    loop = asyncio.get_running_loop()
    member = pool.member
    call, token = None, ""
    try:
        token = await pool.token(member)
        call = member.stream(LEASE_KEEP_ALIVE, pool.metadata(token))
        while True:
            sent_s = loop.time()
            ttl_s = await _renew_once(call, lease, _answer_timeout_s(limit, sent_s))
            limit.reschedule(sent_s + ttl_s)
            pool.touch()
            backoff.reset()
            await asyncio.sleep(ttl_s / RENEWALS_PER_TTL)
    except (aio.AioRpcError, aio.UsageError, asyncio.InvalidStateError, _StreamEndedError) as error:
        if isinstance(error, aio.AioRpcError):
            pool.forget_stale_token(token, error)
        log.debug("etcd lease %x: renewal at %s failed: %r", lease, member.target, error)
        pool.rotate(member)
    finally:
        if call is not None:
            call.cancel()


def _answer_timeout_s(limit: asyncio.Timeout, now_s: float) -> float:
    """Half of what is left, so that another member can still be asked."""
    when_s = limit.when()
    left_s = ANSWER_TIMEOUT_MAX_S if when_s is None else (when_s - now_s) / 2
    return min(max(left_s, 0.05), ANSWER_TIMEOUT_MAX_S)


async def _renew_once(
    call: "aio.StreamStreamCall[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]", lease: int, timeout_s: float
) -> float:
    """Send one renewal. -> the seconds the lease now lives. Raises LeaseLost, _StreamEndedError, AioRpcError."""
    try:
        async with asyncio.timeout(timeout_s):
            await call.write(pb.LeaseKeepAliveRequest(ID=lease))
            response = await call.read()
    except TimeoutError as error:
        raise _StreamEndedError(f"no answer in {timeout_s:.1f} s") from error
    if not isinstance(response, pb.LeaseKeepAliveResponse):
        raise _StreamEndedError("the stream ended")
    if response.TTL <= 0:
        raise LeaseLost(lease)
    return float(response.TTL)
