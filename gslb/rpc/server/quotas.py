"""A server's part in quotas: lets each client in by its share, and tells the control plane what was asked.

    quotas = Quotas("search")
    server = grpc.server(pool, interceptors=[ServerInterceptor(load, gate, quotas)])

Reports go to every control replica a few times a second, and shares come back in the answers. All servers follow the
same one: the first by address that answers. With all of them gone, the last shares hold, for ever. Before the first
shares nobody is held back: what a client may ask is not known then, and the gate protects the server itself.
"""

import itertools
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Final

from typing_extensions import override

from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.quota import ANYBODY, Share, Unit, Usage
from gslb.rpc.client.api import Control
from gslb.rpc.client.connection import ControlConnection
from gslb.rpc.client.errors import ConfigurationError
from gslb.rpc.client.shared import control as shared_control
from gslb.rpc.policy.failure import OVER_QUOTA
from gslb.rpc.policy.quota import Account, Bill
from gslb.rpc.server.shares import UNIT_NUMBERS, ShareStream
from gslb.v1 import quota_pb2
from gslb.wire.scalars import label

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class QuotaState:
    """One client at this server, for metrics and /statusz. Rates per second in `unit`, counts since the first share."""

    unit: Unit
    quota: float  # of all servers
    share: float  # of this one
    over: bool
    requests: int
    refused: int
    used: float  # requests, or CPU seconds


class Passage:
    """What a request was told. `refusal`: why it is refused; empty: it may go on, and is over when the block ends."""

    __slots__ = ("refusal",)

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal

    def charge(self, cpu_s: float) -> None:
        """The request took so much CPU time since the last call."""

    def close(self) -> None:
        """The request is over."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.close()


# Of clients without a quota.
FREE: Final = Passage()


class _Charged(Passage):
    """Of a client with a quota."""

    __slots__ = ("_account", "_bill", "_quotas")

    def __init__(self, quotas: "Quotas", account: Account, bill: Bill) -> None:
        super().__init__()
        self._quotas, self._account, self._bill = quotas, account, bill

    @override
    def charge(self, cpu_s: float) -> None:
        self._quotas.charge(self._account, self._bill, cpu_s)

    @override
    def close(self) -> None:
        self._quotas.end(self._account, self._bill)


class Quotas:
    """The quotas of `service`, which this process serves. `control`: as for `gslb.rpc.channel`; default GSLB_CONTROL.

    One object serves all interceptors and middleware of a process. Safe from any thread. Raises ConfigurationError.
    """

    def __init__(self, service: str, *, control: Control = None) -> None:
        try:
            self.service = label(service, "service")
        except InvalidValueError as error:
            raise ConfigurationError(f"quotas: {error}") from error
        self._connection = control if isinstance(control, ControlConnection) else shared_control(control)
        self._lock = threading.Lock()
        self._accounts: dict[str, Account] = {}
        self._table: Mapping[str, Share] | None = None
        self._following = ""
        self._closed = False
        self._reporter = f"{socket.gethostname()}/{os.getpid()}/quotas/{next(_numbers)}"
        self._boot_id = uuid.uuid4().hex
        self._seq = itertools.count(1)
        self._reported_s = time.monotonic()
        # By address, so that all servers follow the same one.
        self._streams = [
            ShareStream(address, self._connection.dial, self._greeting, self._follow)
            for address in sorted(self._connection.addresses)
        ]
        self._connection.on_close(self.close)
        for stream in self._streams:
            stream.start()
        self._connection.timers.after(limits.QUOTA_REPORT_PERIOD_S, self._report)

    def enter(self, caller: str) -> Passage:
        """A request of this client (empty: nobody knows whose) has come."""
        with self._lock:
            who = caller if caller in self._accounts else ANYBODY
            account = self._accounts.get(who)
            if account is None:
                return FREE
            bill = account.admit(time.monotonic())
            if bill is not None:
                return _Charged(self, account, bill)
            quota, unit = account.share.quota, account.share.unit
        return Passage(self._refusal(who, caller, quota, unit))

    def charge(self, account: Account, bill: Bill, cpu_s: float) -> None:
        """A request that was let in took so much CPU time since the last call."""
        with self._lock:
            account.charge(bill, cpu_s, time.monotonic())

    def end(self, account: Account, bill: Bill) -> None:
        """A request that was let in is over."""
        with self._lock:
            account.close(bill, time.monotonic())

    def state(self) -> dict[str, QuotaState]:
        """Every client that has a quota, by name."""
        with self._lock:
            return {
                caller: QuotaState(
                    account.share.unit,
                    account.share.quota,
                    account.share.rate,
                    account.share.over,
                    account.requests,
                    account.refused,
                    account.used,
                )
                for caller, account in self._accounts.items()
            }

    def explain(self) -> dict[str, object]:
        """Clients with their quotas, and the streams to the control plane, for /statusz."""
        return {
            "service": self.service,
            "following": self._following,
            "clients": [
                {"caller": caller, **asdict(state), "unit": state.unit.value} for caller, state in self.state().items()
            ],
            "replicas": [
                {
                    "replica": stream.target,
                    "error": stream.error,
                    "settled": stream.settled,
                    "silent_s": stream.silent_s(),
                    "refused": stream.refused,
                    "refusal": stream.refusal,
                }
                for stream in self._streams
            ],
        }

    def close(self) -> None:
        """Ends the streams; the last shares hold."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for stream in self._streams:
            stream.close()

    def _refusal(self, who: str, caller: str, quota: float, unit: Unit) -> str:
        whose = f"caller {who!r}" if who != ANYBODY else f"caller {caller!r}, with all that have no quota of their own,"
        return (
            f"{OVER_QUOTA}: {whose} asks for more than {quota:g} {unit.value} of service {self.service!r};"
            " don't retry: ask less, or let the service's owner raise the quota"
        )

    # What the control plane says

    def _follow(self) -> None:
        """A replica said something: takes the word of the first that may be followed."""
        now_s = time.monotonic()
        with self._lock:
            stream = next((stream for stream in self._streams if stream.follows(now_s)), None)
            if stream is None or stream.table is None or stream.table is self._table:
                return
            self._following, self._table = stream.target, stream.table
            for caller in self._accounts.keys() - stream.table.keys():
                del self._accounts[caller]
            for caller, share in stream.table.items():
                account = self._accounts.get(caller)
                if account is None:
                    self._accounts[caller] = Account(share, now_s)
                elif account.share != share:
                    account.grant(share, now_s)

    # What it is told

    def _greeting(self) -> quota_pb2.UsageReport:
        return self._message(0.0, [])

    def _message(self, period_s: float, usages: list[Usage]) -> quota_pb2.UsageReport:
        return quota_pb2.UsageReport(
            reporter=self._reporter,
            boot_id=self._boot_id,
            seq=next(self._seq),
            period_s=period_s,
            service=self.service,
            rows=[
                quota_pb2.UsageRow(
                    caller=usage.caller,
                    unit=UNIT_NUMBERS[usage.unit],
                    asked=usage.asked,
                    used=usage.used,
                    requests=usage.requests,
                )
                for usage in usages
            ],
        )

    def _report(self) -> None:
        """One report to every replica; on the timers' thread."""
        if self._closed:
            return
        now_s = time.monotonic()
        with self._lock:
            usages = [account.take(caller) for caller, account in self._accounts.items()]
        period_s, self._reported_s = now_s - self._reported_s, now_s
        message = self._message(period_s, [usage for usage in usages if usage.requests or usage.used])
        for stream in self._streams:
            stream.send(message)
        self._connection.timers.after(min(stream.every_s for stream in self._streams), self._report)
