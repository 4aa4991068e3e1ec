"""`bns elect`: of several that run it, one runs the command.

Leadership hangs on a lease in etcd. It ends when the lease is lost, or when somebody deletes the key; then the command is
ended and this process stands for election again. Between the loss and the end of the command another may have begun, and
a machine that stands still notices nothing: what the command writes must carry the fencing token, which grows from
leader to leader, so that its store can refuse the older one.
"""

import asyncio
import os
import random
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from bns.errors import BnsError
from bns.etcd.client import Client
from bns.etcd.election import Leadership
from bns.etcd.errors import EtcdError
from bns.etcd.v3 import rpc_pb2 as pb
from bns.names import InvalidNameError, check_label
from bns.retry import Backoff
from bns.running import ENDING, Child, Signals, check_command

ELECTIONS = "/bns-elect/"
TOKEN_VARIABLE = "BNS_FENCING_TOKEN"  # noqa: S105 - the name of a variable
KEY_VARIABLE = "BNS_ELECTION_KEY"
LEAVE_TIMEOUT_S = 2.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Election:
    """`ttl_s`: how long a dead leader is waited for. `grace_s`: between TERM and KILL to the command of a former leader."""

    name: str
    ttl_s: int = 10
    grace_s: float = 5.0

    @property
    def prefix(self) -> bytes:
        """Where the candidates' keys stand."""
        return f"{ELECTIONS}{self.name}/".encode()


def check_election(name: str) -> str:
    """`name` itself: one to five DNS labels with `/` between. Raises InvalidNameError."""
    parts = name.split("/")
    if len(parts) > 5:
        raise InvalidNameError(f"election {name[:200]!r} has {len(parts)} parts: at most 5")
    for part in parts:
        check_label(part, f"election {name[:200]!r}: part")
    return name


class Elector:
    """One candidate."""

    def __init__(self, etcd: Client, election: Election, command: Sequence[str], say: Say) -> None:
        self._etcd = etcd
        self._election = election
        self._command = command
        self._say = say
        self._child: Child | None = None
        self._asked_to_end = 0
        self._ending = asyncio.Event()
        self._backoff = Backoff(random.Random(), max_s=float(election.ttl_s))

    async def run(self) -> int:
        """Stands until the command has run to its end here; its exit code, or 128 + N when signal N came before.

        Raises CommandNotFoundError, and EtcdError when etcd is not there at the start.
        """
        check_command(self._command)
        await self._etcd.status()
        with Signals(self._on_signal):
            while True:
                try:
                    code = await self._stand()
                except EtcdError as error:
                    self._say(f"{self._election.name}: etcd is away, trying again: {error}")
                    code = None
                if code is not None:
                    return code
                if self._asked_to_end:
                    return 128 + self._asked_to_end
                await _first(asyncio.sleep(self._backoff.delay_s()), self._ending.wait())

    def _on_signal(self, number: int) -> None:
        if self._child is not None and self._child.running:
            self._child.forward(number)
        if number in ENDING:
            self._asked_to_end = number
            self._ending.set()

    async def _stand(self) -> int | None:
        """One candidacy; None when it ended without the command having run to its end. Raises EtcdError."""
        lease = await self._etcd.grant(self._election.ttl_s)
        keeper = self._etcd.keep_alive(lease, self._election.ttl_s)
        who = f"{socket.gethostname()}:{os.getpid()}".encode()
        campaign = asyncio.create_task(self._etcd.campaign(self._election.prefix, who, lease))
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({campaign, keeper, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not campaign.done() or ending.done():
                return None
            return await self._lead(campaign.result(), keeper)
        finally:
            for task in (campaign, ending, keeper):
                task.cancel()
            await asyncio.gather(campaign, ending, keeper, return_exceptions=True)
            await self._leave(lease)

    async def _lead(self, leadership: Leadership, keeper: asyncio.Task[None]) -> int | None:
        self._backoff.reset()
        name = self._election.name
        self._say(f"{name}: leading with fencing token {leadership.revision}")
        self._child = child = await Child.start(
            self._command,
            {TOKEN_VARIABLE: str(leadership.revision), KEY_VARIABLE: leadership.key.decode("utf-8", "replace")},
        )
        ended = asyncio.create_task(child.wait())
        deposed = asyncio.create_task(self._until_deposed(leadership))
        try:
            await asyncio.wait({ended, deposed, keeper}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return ended.result()
            self._say(f"{name}: leadership is lost, ending the command")
            await child.end(self._election.grace_s)
            return None
        finally:
            for task in (ended, deposed):
                task.cancel()
            await asyncio.gather(ended, deposed, return_exceptions=True)
            await child.end(self._election.grace_s)
            self._child = None

    async def _until_deposed(self, leadership: Leadership) -> None:
        """Until somebody deletes the leader's key."""
        while True:
            try:
                held = await self._etcd.get(leadership.key)
                if held is None or held.create_revision != leadership.revision:
                    return
                watch = self._etcd.watch(leadership.key, start_revision=held.mod_revision + 1)
                async with aclosing(watch) as batches:
                    async for batch in batches:
                        if any(event.type == pb.Event.DELETE for event in batch.events):
                            return
            except EtcdError:
                # Whether we still lead is up to the lease, while etcd is away.
                await asyncio.sleep(1.0)

    async def _leave(self, lease: int) -> None:
        """So that the next one need not wait for the lease to lapse."""
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._etcd.revoke(lease)
        except (EtcdError, TimeoutError):
            self._say(f"{self._election.name}: etcd did not answer; the next leader waits {self._election.ttl_s} s")


async def _first(*alternatives: Coroutine[object, object, object]) -> None:
    """Until one of them is done; the others are cancelled."""
    tasks = {asyncio.ensure_future(alternative) for alternative in alternatives}
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def etcd_problem(addresses: str, error: EtcdError) -> BnsError:
    """One clear line when etcd is not there at the start."""
    return BnsError(f"etcd at {addresses} cannot be used: {error}; is it running, and is --etcd right?")
