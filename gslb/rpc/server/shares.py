"""The stream to one control replica that takes a server's usage away and brings its shares of quotas back."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import grpc
from typing_extensions import override

from gslb.model import limits
from gslb.model.quota import Share, Unit
from gslb.rpc.client.stream import Dial, LastingStream, StreamCall
from gslb.v1 import quota_pb2, quota_pb2_grpc

UNITS: Final[Mapping[int, Unit]] = {quota_pb2.QUOTA_UNIT_RPS: Unit.RPS, quota_pb2.QUOTA_UNIT_CPU: Unit.CPU}
UNIT_NUMBERS: Final = {unit: quota_pb2.QuotaUnit.ValueType(number) for number, unit in UNITS.items()}
# A replica that has not answered for so many of the periods that it wants reports in is not followed.
_LATE_PERIODS: Final = 4.0
_LATE_LEAST_S: Final = 2.0


class ShareStream(LastingStream[quota_pb2.UsageReport, quota_pb2.QuotaAnswer]):
    """`table` is what the replica says, by client; a new object with each change, None: nothing yet."""

    def __init__(
        self, address: str, dial: Dial, greet: Callable[[], quota_pb2.UsageReport], changed: Callable[[], None]
    ) -> None:
        super().__init__("gslb-rpc-quotas", [address], dial)
        self.target = address
        self.table: Mapping[str, Share] | None = None
        self.settled = False
        self.every_s = limits.QUOTA_REPORT_PERIOD_S
        self.refused = 0  # reports, and shares that are none
        self.refusal = ""  # the last one's reason
        self._greet = greet
        self._changed = changed

    @override
    def open(
        self, channel: grpc.Channel, requests: Iterator[quota_pb2.UsageReport]
    ) -> StreamCall[quota_pb2.QuotaAnswer]:
        stub: quota_pb2_grpc.QuotasStub = quota_pb2_grpc.QuotasStub(channel)
        return stub.Share(requests)

    @override
    def greeting(self) -> Sequence[quota_pb2.UsageReport]:
        return [self._greet()]

    @override
    def on_message(self, message: quota_pb2.QuotaAnswer) -> None:
        if math.isfinite(message.report_every_s):
            self.every_s = min(limits.QUOTA_REPORT_MAX_S, max(limits.QUOTA_REPORT_PERIOD_S / 2, message.report_every_s))
        if not message.accepted:
            self._refuse(message.reason)
            return
        self.settled = message.settled
        if not message.settled:
            return
        if message.complete or message.shares:
            before = {} if message.complete or self.table is None else self.table
            self.table = {**before, **self._checked(message.shares)}
        self._changed()

    def follows(self, now_s: float) -> bool:
        """Whether it may be followed: it has heard all servers, and answers."""
        late_s = max(_LATE_LEAST_S, _LATE_PERIODS * self.every_s)
        return self.settled and self.table is not None and now_s - self.received_s <= late_s

    def silent_s(self) -> float | None:
        """Since the last answer; None: there was none."""
        return time.monotonic() - self.received_s if self.received_s else None

    def _checked(self, shares: Sequence[quota_pb2.QuotaShare]) -> dict[str, Share]:
        """By client; what is no share is left out, and the one before stays."""
        good = {}
        for share in list(shares)[: limits.QUOTAS_PER_SERVICE_MAX]:
            unit = UNITS.get(share.unit)
            if unit is None or not 0.0 <= share.rate <= share.quota <= limits.RATE_MAX_RPS:
                self._refuse(
                    f"share of {share.caller[: limits.NAME_MAX_CHARS]!r}: unit {share.unit}, rate {share.rate:g},"
                    f" quota {share.quota:g}: no share"
                )
                continue
            good[share.caller[: limits.NAME_MAX_CHARS]] = Share(unit, share.rate, share.quota, over=share.over)
        return good

    def _refuse(self, reason: str) -> None:
        self.refused += 1
        self.refusal = reason[: limits.REASON_MAX_CHARS]
