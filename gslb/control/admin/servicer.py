"""gslb.v1.Admin over gRPC. Any replica takes any call: changes are transactions in etcd, wherever they come from.

A call that is refused has changed nothing, and its status says in plain lines what was wrong and what to do.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio
from typing_extensions import override

from bns.etcd.errors import EtcdError
from bns.etcd.ops import compare_mod, op_put
from bns.transport import principal_of
from gslb.balancer.explain import explain
from gslb.control import keys
from gslb.control.admin import apply, drains, recordings
from gslb.control.admin.desk import Change, ConflictError, Desk, Snapshot, UncertainError
from gslb.control.admin.findings import findings_of
from gslb.control.admin.status import status_of
from gslb.model import limits
from gslb.model.errors import GslbError, InvalidValueError, NotFoundError, RefusedError
from gslb.model.resources import Drain, Resource, kind_of
from gslb.v1 import admin_pb2, admin_pb2_grpc
from gslb.wire.codec import encode_resource, encode_stamp, resource_to_bytes

if TYPE_CHECKING:
    from gslb.control.replica import Replica

log = logging.getLogger(__name__)

T = TypeVar("T")
Context = grpc.aio.ServicerContext[object, object]

# What fits into the trailers of a gRPC status.
DETAILS_MAX_CHARS = 6000


class _ColdError(GslbError):
    """This replica cannot judge yet."""


class AdminServicer(admin_pb2_grpc.AdminServicer):
    """One replica's admin API."""

    def __init__(self, replica: "Replica") -> None:
        self._replica = replica
        self._desk = Desk(replica.etcd, replica.mirror)

    # Resources ---------------------------------------------------------------------------------------------------

    @override
    async def Apply(self, request: admin_pb2.ApplyRequest, context: Context) -> admin_pb2.ApplyResponse:
        return await _answered(self._apply(request, principal_of(context)), context)

    async def _apply(self, request: admin_pb2.ApplyRequest, principal: str) -> admin_pb2.ApplyResponse:
        given = apply.decode_all(request.resources)

        async def work(snapshot: Snapshot) -> tuple[Sequence[Change], admin_pb2.ApplyResponse]:
            changes = apply.decide(snapshot, given, principal)
            await self._admit_applied(snapshot, changes)
            response = admin_pb2.ApplyResponse(applied=_applied(changes))
            return ([] if request.dry_run else changes), response

        response = await self._desk.change(work)
        if not request.dry_run:
            log.info("%s applied %s", principal, _named(response.applied))
        return response

    async def _admit_applied(self, snapshot: Snapshot, changes: Sequence[Change]) -> None:
        """Drains in files pass the same rules as `gslb drain`."""
        fresh = [change for change in changes if isinstance(change.resource, Drain) and change.action != "unchanged"]
        for change in fresh:
            drain = change.resource
            assert isinstance(drain, Drain)
            if drain.expires_at <= snapshot.now:
                raise InvalidValueError(
                    f"drain {drain.name}: expires_at {drain.expires_at.isoformat()} is over: give a later one"
                )
            catalog = apply.catalog_after(snapshot.catalog, changes)
            drains.check_known(catalog, self._replica.store.view, drain.scope, drain.target)
            if not drain.overridden:
                others = apply.catalog_after(snapshot.catalog, [one for one in changes if one is not change])
                preview = await asyncio.to_thread(drains.preview, drain, others, self._moment())
                drains.refuse(drain, preview.violations)

    @override
    async def Get(self, request: admin_pb2.GetRequest, context: Context) -> admin_pb2.GetResponse:
        return await _answered(self._get(request), context)

    async def _get(self, request: admin_pb2.GetRequest) -> admin_pb2.GetResponse:
        kind = apply.check_kind(request.kind) if request.kind else ""
        snapshot = await self._desk.read_or_mirror()
        found = [
            resource
            for resource in _live(snapshot)
            if kind in {"", kind_of(resource)} and request.name in {"", resource.meta.name}
        ]
        if request.name and not found:
            raise NotFoundError(
                f"there is no {kind or 'resource'} {request.name[:80]!r}: `gslb get {kind or 'service'}` lists what there is"
            )
        return admin_pb2.GetResponse(resources=[encode_resource(resource) for resource in found])

    @override
    async def Delete(self, request: admin_pb2.DeleteRequest, context: Context) -> admin_pb2.DeleteResponse:
        return await _answered(self._delete(request, principal_of(context)), context)

    async def _delete(self, request: admin_pb2.DeleteRequest, principal: str) -> admin_pb2.DeleteResponse:
        kind = apply.check_kind(request.kind)
        if not request.name:
            raise InvalidValueError(f"which {kind}? Give its name")

        async def work(snapshot: Snapshot) -> tuple[Sequence[Change], None]:
            view = self._replica.store.view
            return [apply.decide_delete(snapshot, kind, request.name, principal, view)], None

        await self._desk.change(work)
        log.info("%s deleted %s %s", principal, kind, request.name)
        return admin_pb2.DeleteResponse()

    # Drains ------------------------------------------------------------------------------------------------------

    @override
    async def Drain(self, request: admin_pb2.DrainRequest, context: Context) -> admin_pb2.DrainResponse:
        return await _answered(self._drain(request, principal_of(context)), context)

    async def _drain(self, request: admin_pb2.DrainRequest, principal: str) -> admin_pb2.DrainResponse:
        wish = drains.read_wish(request, principal)

        async def work(snapshot: Snapshot) -> tuple[Sequence[Change], admin_pb2.DrainResponse]:
            drains.check_known(snapshot.catalog, self._replica.store.view, wish.scope, wish.target)
            change = drains.make_drain(snapshot, wish, principal)
            drain = change.resource
            assert isinstance(drain, Drain)
            preview = await asyncio.to_thread(drains.preview, drain, snapshot.catalog, self._moment())
            if not (wish.override or request.dry_run):
                drains.refuse(drain, preview.violations)
            response = admin_pb2.DrainResponse(
                name=drain.name,
                drain=encode_resource(drain),
                effects=[
                    admin_pb2.DrainEffect(
                        service=effect.service,
                        datacenter=effect.datacenter,
                        capacity_before_rps=effect.capacity_before_rps,
                        capacity_after_rps=effect.capacity_after_rps,
                        load_before_rps=effect.load_before_rps,
                        load_after_rps=effect.load_after_rps,
                        why=effect.why,
                    )
                    for effect in preview.effects
                ],
                violations=preview.violations,
            )
            return ([] if request.dry_run else [change]), response

        response = await self._desk.change(work)
        if not request.dry_run:
            log.info("%s drains %s %s: %s", principal, wish.scope.value, wish.target, wish.reason)
        return response

    def _moment(self) -> drains.Moment:
        """What drains are judged by now. Raises _ColdError on a replica that does not know the load yet."""
        replica = self._replica
        if not (replica.warm and replica.planner.steps):
            raise _ColdError(
                f"this replica cannot judge a drain yet ({replica.why_cold or 'it has not planned'}): ask another one"
            )
        return drains.Moment(replica.planner.gather(None), replica.planner.state, time.time())

    @override
    async def Undrain(self, request: admin_pb2.UndrainRequest, context: Context) -> admin_pb2.UndrainResponse:
        return await _answered(self._undrain(request, principal_of(context)), context)

    async def _undrain(self, request: admin_pb2.UndrainRequest, principal: str) -> admin_pb2.UndrainResponse:
        async def work(snapshot: Snapshot) -> tuple[Sequence[Change], list[str]]:
            changes = drains.decide_undrain(snapshot, request, principal)
            return changes, [change.resource.meta.name for change in changes]

        removed = await self._desk.change(work)
        log.info("%s undrained %s", principal, ", ".join(removed))
        return admin_pb2.UndrainResponse(removed=removed)

    # Looking -----------------------------------------------------------------------------------------------------

    @override
    async def Explain(self, request: admin_pb2.ExplainRequest, context: Context) -> admin_pb2.ExplainResponse:
        return await _answered(self._explain(request), context)

    async def _explain(self, request: admin_pb2.ExplainRequest) -> admin_pb2.ExplainResponse:
        replica = self._replica
        if not (replica.warm and replica.planner.steps):
            raise _ColdError(f"nothing is planned here yet ({replica.why_cold or 'in a moment'}): ask another replica")
        inputs = replica.planner.gather(frozenset())
        told = explain(replica.planner.state, inputs, request.service, request.locality, now_s=time.time())
        return admin_pb2.ExplainResponse(
            service=told.service,
            locality=told.locality,
            demand_rps=told.demand_rps,
            stamp=encode_stamp(told.stamp),
            candidates=[
                admin_pb2.Candidate(
                    datacenter=one.datacenter,
                    rtt_ms=one.rtt_ms,
                    capacity_rps=one.capacity_rps,
                    load_rps=one.load_rps,
                    healthy_tasks=one.healthy_tasks,
                    tasks=one.tasks,
                    drain=one.drain,
                    share=one.share,
                    reason=one.reason,
                    heirs=list(one.if_lost),
                    heir_share=list(one.if_lost.values()),
                    fullest_if_lost=one.fullest_if_lost,
                    fullest_utilization=one.fullest_utilization,
                    binds=one.binds.constraint.value if one.binds else "",
                    price_ms=one.binds.price_ms if one.binds else 0.0,
                )
                for one in told.candidates
            ],
            notes=told.notes,
        )

    @override
    async def Check(self, request: admin_pb2.CheckRequest, context: Context) -> admin_pb2.CheckResponse:
        return admin_pb2.CheckResponse(findings=await findings_of(self._replica))

    @override
    async def Status(self, request: admin_pb2.StatusRequest, context: Context) -> admin_pb2.StatusResponse:
        return status_of(self._replica)

    # The flight recorder -----------------------------------------------------------------------------------------

    @override
    async def Recordings(self, request: admin_pb2.RecordingsRequest, context: Context) -> admin_pb2.RecordingsResponse:
        return await _answered(recordings.listed(self._replica), context)

    @override
    async def ReadRecording(
        self, request: admin_pb2.ReadRecordingRequest, context: Context
    ) -> admin_pb2.ReadRecordingResponse:
        return await _answered(recordings.read(self._replica, request), context)

    # Export and import -------------------------------------------------------------------------------------------

    @override
    async def Export(self, request: admin_pb2.ExportRequest, context: Context) -> admin_pb2.ExportResponse:
        return await _answered(self._export(), context)

    async def _export(self) -> admin_pb2.ExportResponse:
        snapshot = await self._desk.read_or_mirror()
        return admin_pb2.ExportResponse(
            resources=[encode_resource(resource) for resource in _live(snapshot)],
            incarnation=self._replica.mirror.incarnation,
        )

    @override
    async def Import(self, request: admin_pb2.ImportRequest, context: Context) -> admin_pb2.ImportResponse:
        return await _answered(self._import(request, principal_of(context)), context)

    async def _import(self, request: admin_pb2.ImportRequest, principal: str) -> admin_pb2.ImportResponse:
        """Checked as a whole; then written in parts of which each holds by itself, so that it can be run again."""
        given = apply.decode_all(request.resources)

        async def check(snapshot: Snapshot) -> tuple[Sequence[Change], list[Change]]:
            return [], apply.decide_import(snapshot, given, principal)

        changes = await self._desk.change(check)
        applied = _applied(changes)
        due = {(kind_of(one.resource), one.resource.meta.name) for one in changes if one.action != "unchanged"}
        ordered = [
            next(one for one in given if (kind_of(one.resource), one.resource.meta.name) == key)
            for change in changes
            if (key := (kind_of(change.resource), change.resource.meta.name)) in due
        ]
        for part in _parts(ordered):

            async def write(snapshot: Snapshot, part: list[apply.Given] = part) -> tuple[Sequence[Change], None]:
                return apply.decide_import(snapshot, part, principal), None

            await self._desk.change(write)
        incarnation = self._replica.mirror.incarnation
        if request.new_incarnation:
            incarnation = await self._next_incarnation(request.incarnation)
        log.info("%s imported %s, incarnation %d", principal, _named(applied), incarnation)
        return admin_pb2.ImportResponse(applied=applied, incarnation=incarnation)

    async def _next_incarnation(self, exported: int) -> int:
        """Above everything that any reader may hold. Raises EtcdError, ConflictError."""
        held = await self._replica.etcd.get(keys.INCARNATION)
        stored = int(held.value) if held is not None and held.value[:20].isdigit() else 0
        following = max(stored, exported, self._replica.mirror.highest_incarnation) + 1
        response = await self._replica.etcd.txn(
            [compare_mod(keys.INCARNATION, "==", held.mod_revision if held else 0)],
            [op_put(keys.INCARNATION, str(following).encode())],
        )
        if not response.succeeded:
            raise ConflictError("the incarnation was changed by another import at the same time: look, then try again")
        return following


def _live(snapshot: Snapshot) -> list[Resource]:
    catalog = snapshot.catalog
    return [
        *catalog.datacenters.values(),
        *catalog.areas.values(),
        *catalog.services.values(),
        *catalog.zones.values(),
        *catalog.drains.values(),
    ]


def _applied(changes: Sequence[Change]) -> list[admin_pb2.Applied]:
    return [
        admin_pb2.Applied(
            kind=kind_of(change.resource),
            name=change.resource.meta.name,
            action=change.action,
            generation=change.resource.meta.generation,
        )
        for change in changes
    ]


def _named(applied: Sequence[admin_pb2.Applied]) -> str:
    written = [f"{one.kind} {one.name}" for one in applied if one.action != "unchanged"]
    more = f" and {len(written) - 10} more" if len(written) > 10 else ""
    return (", ".join(written[:10]) + more) or "nothing new"


def _parts(given: Sequence[apply.Given]) -> list[list[apply.Given]]:
    """In order, each small enough for one transaction."""
    parts: list[list[apply.Given]] = [[]]
    size = 0
    for one in given:
        length = len(resource_to_bytes(one.resource)) + 200  # its Meta will be filled in
        if parts[-1] and (len(parts[-1]) >= limits.TXN_OPS_MAX - 1 or size + length > limits.TXN_BYTES_MAX):
            parts.append([])
            size = 0
        parts[-1].append(one)
        size += length
    return [part for part in parts if part]


def _status(error: GslbError | EtcdError) -> tuple[grpc.StatusCode, str]:
    match error:
        case InvalidValueError():
            return grpc.StatusCode.INVALID_ARGUMENT, str(error)
        case NotFoundError():
            return grpc.StatusCode.NOT_FOUND, str(error)
        case RefusedError():
            lines = [str(error), *(line for line in error.violations if line not in str(error))]
            return grpc.StatusCode.FAILED_PRECONDITION, "\n".join(lines)
        case ConflictError():
            return grpc.StatusCode.ABORTED, str(error)
        case EtcdError():
            return grpc.StatusCode.UNAVAILABLE, f"etcd does not answer, so nothing was changed: {error}"
        case UncertainError():
            return grpc.StatusCode.UNKNOWN, str(error)
        case _:
            return grpc.StatusCode.UNAVAILABLE, str(error)


async def _answered(work: Awaitable[T], context: Context) -> T:
    """The result of `work`, or the call ends with the status of its error."""
    try:
        return await work
    except (GslbError, EtcdError) as error:
        code, details = _status(error)
        if len(details) > DETAILS_MAX_CHARS:
            kept = details[:DETAILS_MAX_CHARS].rsplit("\n", 1)[0]
            details = f"{kept}\n(and {details.count(chr(10)) - kept.count(chr(10))} more lines)"
        await context.abort(code, details)
        raise
