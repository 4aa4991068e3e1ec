"""Plans and stamps <-> protobuf, with the checksum that travels with each plan.

A plan is refused whole: half a plan would send the demand of the other half somewhere unplanned. A reader that refuses
one keeps the last good one.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.grammar import shown
from gslb.model.plan import Plan, Shares, Stamp
from gslb.v1 import plan_pb2
from gslb.wire.scalars import count, decode_seconds, encode_seconds, label, line, number, parse


def encode_stamp(stamp: Stamp) -> plan_pb2.Stamp:
    """The wire form of a stamp."""
    return plan_pb2.Stamp(incarnation=stamp.incarnation, epoch=stamp.epoch, version=stamp.version)


def decode_stamp(stamp: plan_pb2.Stamp) -> Stamp:
    """Any three numbers are a stamp; one that was not set is ZERO_STAMP."""
    return Stamp(stamp.incarnation, stamp.epoch, stamp.version)


def checksum_of(plan: plan_pb2.Plan) -> int:
    """First 8 bytes, big endian, of BLAKE2b over the deterministic serialisation with checksum = 0.

    Fields of a newer version count too: they are serialised after the known ones, as their writer did, as long as new
    fields get larger numbers than all before them.
    """
    bare = plan_pb2.Plan()
    bare.CopyFrom(plan)
    bare.checksum = 0
    digest = hashlib.blake2b(bare.SerializeToString(deterministic=True)).digest()
    return int.from_bytes(digest[:8], "big")


def encode_plan(plan: Plan) -> plan_pb2.Plan:
    """The stored and the wire form: datacenters once, shares above zero only, everything sorted, checksum set."""
    datacenters = sorted(_datacenters_of(plan))
    column = {name: index for index, name in enumerate(datacenters)}
    made = plan_pb2.Plan(
        service=plan.service,
        stamp=encode_stamp(plan.stamp),
        datacenters=datacenters,
        localities=_encode_rows(plan.shares, column, plan.demand_rps),
        contingencies=[
            plan_pb2.Contingency(lost=lost, localities=_encode_rows(rows, column, {}))
            for lost, rows in sorted(plan.contingencies.items())
        ],
        capacity_rps=[plan.capacity_rps.get(name, 0.0) for name in datacenters] if plan.capacity_rps else [],
        load_rps=[plan.load_rps.get(name, 0.0) for name in datacenters] if plan.load_rps else [],
        computed_at=encode_seconds(plan.computed_at_s),
        notes=[note[: limits.NOTE_MAX_CHARS] for note in plan.notes[: limits.NOTES_PER_PLAN_MAX]],
    )
    made.checksum = checksum_of(made)
    return made


def _datacenters_of(plan: Plan) -> set[str]:
    names = {*plan.capacity_rps, *plan.load_rps, *plan.contingencies}
    for rows in (plan.shares, *plan.contingencies.values()):
        for shares in rows.values():
            names.update(shares)
    return names


def _encode_rows(
    rows: Mapping[str, Shares], column: Mapping[str, int], demand_rps: Mapping[str, float]
) -> Iterable[plan_pb2.LocalityShares]:
    for locality, shares in sorted(rows.items()):
        used = sorted((column[name], share) for name, share in shares.items() if share > 0)
        yield plan_pb2.LocalityShares(
            locality=locality,
            datacenter_index=[index for index, _ in used],
            share=[share for _, share in used],
            demand_rps=demand_rps.get(locality, 0.0),
        )


def decode_plan(plan: plan_pb2.Plan) -> Plan:
    """A plan that may be followed. Raises InvalidValueError naming the service, the place and the value."""
    service = label(plan.service, "the plan's service")
    where = f"plan of {service}"
    if plan.checksum != checksum_of(plan):
        raise InvalidValueError(
            f"{where}: checksum {plan.checksum:#018x} does not fit its content: it was damaged on its way"
        )
    datacenters = _decode_datacenters(plan.datacenters, where)
    count(len(plan.notes), limits.NOTES_PER_PLAN_MAX, f"{where}: notes")
    count(len(plan.contingencies), len(datacenters), f"{where}: contingencies")
    shares = _decode_rows(plan.localities, datacenters, where)
    if not shares:
        raise InvalidValueError(f"{where}: it has no locality, so nobody would be sent anywhere")
    return Plan(
        service=service,
        stamp=decode_stamp(plan.stamp),
        shares=shares,
        demand_rps={
            row.locality: number(row.demand_rps, f"{where}: demand_rps of {row.locality}") for row in plan.localities
        },
        capacity_rps=_decode_column(plan.capacity_rps, datacenters, f"{where}: capacity_rps"),
        load_rps=_decode_column(plan.load_rps, datacenters, f"{where}: load_rps"),
        contingencies=_decode_contingencies(plan.contingencies, datacenters, where),
        computed_at_s=decode_seconds(plan.computed_at, f"{where}: computed_at"),
        notes=tuple(line(note, limits.NOTE_MAX_CHARS, f"{where}: note") for note in plan.notes),
    )


def _decode_datacenters(names: Sequence[str], where: str) -> tuple[str, ...]:
    count(len(names), limits.DATACENTERS_MAX, f"{where}: datacenters")
    datacenters = tuple(label(name, f"{where}: datacenter") for name in names)
    if len(set(datacenters)) != len(datacenters):
        raise InvalidValueError(f"{where}: a datacenter is listed twice in {shown(datacenters, 200)}")
    return datacenters


def _decode_column(values: Sequence[float], datacenters: tuple[str, ...], what: str) -> dict[str, float]:
    if values and len(values) != len(datacenters):
        raise InvalidValueError(f"{what} has {len(values)} values for {len(datacenters)} datacenters")
    return {name: number(value, f"{what} of {name}") for name, value in zip(datacenters, values, strict=False)}


def _decode_rows(
    rows: Sequence[plan_pb2.LocalityShares], datacenters: tuple[str, ...], where: str
) -> dict[str, dict[str, float]]:
    count(len(rows), limits.LOCALITIES_MAX, f"{where}: localities")
    decoded: dict[str, dict[str, float]] = {}
    for row in rows:
        locality = label(row.locality, f"{where}: locality")
        if locality in decoded:
            raise InvalidValueError(f"{where}: locality {locality!r} is listed twice")
        decoded[locality] = _decode_shares(row, datacenters, f"{where}, locality {locality}")
    return decoded


def _decode_shares(row: plan_pb2.LocalityShares, datacenters: tuple[str, ...], where: str) -> dict[str, float]:
    if len(row.datacenter_index) != len(row.share):
        raise InvalidValueError(f"{where}: {len(row.share)} shares for {len(row.datacenter_index)} datacenters")
    shares: dict[str, float] = {}
    for index, share in zip(row.datacenter_index, row.share, strict=True):
        if index >= len(datacenters):
            raise InvalidValueError(f"{where}: datacenter number {index}, but the plan names only {len(datacenters)}")
        name = datacenters[index]
        if name in shares:
            raise InvalidValueError(f"{where}: datacenter {name!r} has two shares")
        shares[name] = number(share, f"{where}: share of {name}", 0.0, 1.0 + limits.SHARE_SUM_TOLERANCE)
    total = sum(shares.values())
    if abs(total - 1.0) > limits.SHARE_SUM_TOLERANCE:
        raise InvalidValueError(f"{where}: the shares sum to {total!r}, not to 1")
    return shares


def _decode_contingencies(
    contingencies: Sequence[plan_pb2.Contingency], datacenters: tuple[str, ...], where: str
) -> dict[str, dict[str, dict[str, float]]]:
    decoded: dict[str, dict[str, dict[str, float]]] = {}
    for contingency in contingencies:
        lost = contingency.lost
        if lost not in datacenters or lost in decoded:
            raise InvalidValueError(
                f"{where}: contingency for {shown(lost)}, a datacenter unknown to it or given twice"
            )
        rows = _decode_rows(contingency.localities, datacenters, f"{where}, {lost} lost")
        if any(shares.get(lost) for shares in rows.values()):
            raise InvalidValueError(f"{where}: the contingency for the loss of {lost!r} sends load to it")
        decoded[lost] = rows
    return decoded


def plan_to_bytes(plan: Plan) -> bytes:
    """The record for etcd. Raises InvalidValueError: what no reader would take is not written."""
    made = encode_plan(plan)
    decode_plan(made)
    data = made.SerializeToString(deterministic=True)
    if len(data) > limits.RECORD_MAX_BYTES:
        raise InvalidValueError(
            f"plan of {plan.service} has {len(data)} bytes: at most {limits.RECORD_MAX_BYTES} are kept in one record"
        )
    return data


def plan_from_bytes(data: bytes) -> Plan:
    """A record from etcd. Raises InvalidValueError."""
    return decode_plan(parse(plan_pb2.Plan, data, "plan", limits.RECORD_MAX_BYTES))
