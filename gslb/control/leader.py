"""Who publishes: campaigns for the leader's key as long as the process lives, term after term.

Being elected authorises nothing; `leadership.fence()` in each transaction does. This loop only keeps a replica that
has lost its lease from trying.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable

from bns.etcd.client import Client
from bns.etcd.election import Leadership
from bns.etcd.errors import EtcdError, LeaseLost
from gslb.control import keys
from gslb.control.view.leaders import encode_candidate
from gslb.model import limits

log = logging.getLogger(__name__)

RETRY_S = 0.5


class Elector:
    """`leadership` is set while this replica leads; `on_change` is called when that begins and ends."""

    def __init__(self, etcd: Client, replica: str, address: str, on_change: Callable[[], None]) -> None:
        self._etcd = etcd
        self._replica = replica
        self._address = address
        self._on_change = on_change
        self._over = asyncio.Event()
        self.leadership: Leadership | None = None
        self.terms = 0

    async def run(self) -> None:
        """Until cancelled; then leadership is given up at once, if etcd can be told."""
        while True:
            try:
                await self._term()
            except EtcdError as error:
                log.debug("no election now: %s", error)
            await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.0))

    async def _term(self) -> None:
        lease = await self._etcd.grant(limits.LEADER_TTL_S)
        over = self._over = asyncio.Event()
        lost = asyncio.Event()

        def on_lost(_: int) -> None:
            lost.set()
            over.set()

        keeper = self._etcd.keep_alive(lease, limits.LEADER_TTL_S, on_lost)
        value = encode_candidate(self._replica, self._address, time.time())
        campaign = asyncio.create_task(self._etcd.campaign(keys.LEADERS, value, lease))
        end = asyncio.create_task(over.wait())
        try:
            await asyncio.wait((campaign, end), return_when=asyncio.FIRST_COMPLETED)
            if over.is_set():
                raise LeaseLost(lease)
            self._begin(campaign.result())
            await over.wait()
            log.warning("%s leads no more: its lease or its key in etcd is gone", self._replica)
        finally:
            self._end()
            for task in (campaign, end, keeper):
                task.cancel()
            await asyncio.gather(campaign, end, keeper, return_exceptions=True)
            if not lost.is_set():
                await self._give_up(lease)

    def _begin(self, leadership: Leadership) -> None:
        log.info("%s leads, epoch %d", self._replica, leadership.revision)
        self.leadership = leadership
        self.terms += 1
        self._on_change()

    def _end(self) -> None:
        if self.leadership is not None:
            self.leadership = None
            self._on_change()

    async def _give_up(self, lease: int) -> None:
        """Revoking the lease takes the leader's key with it: the next one leads within milliseconds."""
        with contextlib.suppress(EtcdError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._etcd.revoke(lease)

    def deposed(self) -> None:
        """etcd says that our key is gone: the term is over, whatever the lease says."""
        self._over.set()
        self._end()
