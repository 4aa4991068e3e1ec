"""gslb.v1.DnsFrontend: `gslb explain dns` and `gslb dns reload` ask here."""

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import grpc
import grpc.aio
from typing_extensions import override

from dns_frontend.explain import Explanation, explain
from dns_frontend.holder import Held
from dns_frontend.limits import ZONES_SHOWN_MAX
from dns_frontend.local import Local, served_zones
from dns_frontend.responder.guard import PANIC_TEXT
from gslb.model.errors import GslbError, NotFoundError
from gslb.v1 import dns_pb2, dns_pb2_grpc
from gslb.wire.codec import encode_stamp

ReloadContext = grpc.aio.ServicerContext[dns_pb2.ReloadRequest, dns_pb2.ReloadResponse]
Context = grpc.aio.ServicerContext[dns_pb2.ExplainDnsRequest, dns_pb2.ExplainDnsResponse]


class Age(NamedTuple):
    """How old what is served is; `stale`: what answers say of it."""

    age_s: float = 0.0
    stale: str = ""


class DnsFrontendServicer(dns_pb2_grpc.DnsFrontendServicer):
    """Explains answers from what is served at this moment, and has files read anew."""

    def __init__(
        self,
        held: Callable[[], Held],
        default_locality: str,
        reload: Callable[[], Awaitable[Local]],
        age: Callable[[], Age],
    ) -> None:
        self._held = held
        self._age = age
        self._default_locality = default_locality
        self._reload = reload

    @override
    async def Reload(self, request: dns_pb2.ReloadRequest, context: ReloadContext) -> dns_pb2.ReloadResponse:
        local = await self._reload()
        zones = [
            dns_pb2.ServedZone(origin=zone.origin, serial=zone.serial, source=zone.source, names=zone.names)
            for zone in served_zones(self._held().serving, local)[:ZONES_SHOWN_MAX]
        ]
        return dns_pb2.ReloadResponse(zones=zones, problems=local.problems)

    @override
    async def Explain(self, request: dns_pb2.ExplainDnsRequest, context: Context) -> dns_pb2.ExplainDnsResponse:
        held = self._held()
        try:
            found = explain(held.serving, request.name, request.type, request.client_ip, self._default_locality)
        except NotFoundError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except GslbError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return _message(found, held.origin.value, self._age())


def _message(found: Explanation, origin: str, age: Age) -> dns_pb2.ExplainDnsResponse:
    plan = found.plan
    return dns_pb2.ExplainDnsResponse(
        name=found.name,
        service=found.service,
        locality=found.locality,
        matched_prefix=found.matched_prefix,
        stamp=encode_stamp(plan.stamp) if plan else None,
        plan_age_s=max(0.0, time.time() - plan.computed_at_s) if plan else 0.0,
        datacenters=list(found.shares),
        share=list(found.shares.values()),
        chosen=found.chosen,
        reason=found.reason,
        answers=found.answers,
        scope=found.scope,
        ttl_s=found.ttl_s,
        source=origin,
        matched_source=found.matched_source,
        place=found.place,
        age_s=age.age_s,
        usable_share=[found.usable.get(name, 0.0) for name in found.shares],
        extended_errors=[*([age.stale] if age.stale and found.service else []), *([PANIC_TEXT] if found.panic else [])],
    )
