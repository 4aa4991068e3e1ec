"""`gslb explain`: why traffic goes where it goes."""

import click
import grpc

from bns.errors import AddressError
from bns.transport import parse_addresses, sync_channel
from gslb.cli.output import Column, say, show, with_format
from gslb.cli.session import Session, refusal_of, with_session
from gslb.v1 import admin_pb2, dns_pb2, dns_pb2_grpc

TIMEOUT_S = 5.0
_TYPES = ("A", "AAAA", "CAA", "CNAME", "HTTPS", "MX", "NS", "SOA", "SRV", "SVCB", "TXT")
CANDIDATES = (
    Column("datacenter", "datacenter"), Column("rtt ms", "rtt_ms"), Column("share", "share_percent"),
    Column("load", "load_rps"),
    Column("capacity", "capacity_rps"), Column("healthy", "healthy"), Column("drain", "drain"), Column("why", "reason"),
    Column("binds", "binds_at"),
    Column("if lost", "if_lost_to"),
)  # fmt: skip
DNS = tuple(
    Column(key.replace("_", " "), key)
    for key in (
        "name",
        "service",
        "locality",
        "chosen",
        "answers",
        "ttl_s",
        "scope",
        "matched_prefix",
        "matched_source",
        "place",
        "reason",
        "stamp",
        "source",
    )
)


@click.group(short_help="Say why traffic goes where it goes.")
def explain() -> None:
    """Say why traffic goes where it goes."""


@explain.command("service")
@click.argument("name")
@click.option("--from", "locality", required=True, metavar="LOCALITY", help="A datacenter or client area.")
@with_format
@with_session
def service(session: Session, name: str, locality: str, output: str) -> None:
    """For one service and locality: each datacenter in order, its share, the reason, and who takes over if it is lost.

    `binds` names what keeps some of the locality's requests from a datacenter that they would rather go to, with its price:
    what a request would win if just that gave way.
    """
    reply = session.call(lambda admin: admin.Explain, admin_pb2.ExplainRequest(service=name, locality=locality))
    rows = [
        {"datacenter": c.datacenter, "rtt_ms": c.rtt_ms, "share": c.share, "share_percent": f"{100 * c.share:.1f} %",
         "load_rps": c.load_rps, "capacity_rps": c.capacity_rps, "healthy": f"{c.healthy_tasks}/{c.tasks}",
         "healthy_tasks": c.healthy_tasks, "tasks": c.tasks, "drain": c.drain, "reason": c.reason,
         "if_lost": dict(zip(c.heirs, c.heir_share, strict=True)), "if_lost_to": _if_lost(c),
         "fullest_if_lost": c.fullest_if_lost, "fullest_utilization_if_lost": c.fullest_utilization,
         "binds": c.binds, "price_ms": c.price_ms, "binds_at": f"{c.binds}, {c.price_ms:.3g} ms" if c.binds else ""}
        for c in reply.candidates
    ]  # fmt: skip
    show(output, rows, CANDIDATES)
    stamp = f"{reply.stamp.incarnation}.{reply.stamp.epoch}.{reply.stamp.version}"
    say(f"{name} from {locality}: demand {reply.demand_rps:.1f} rps, plan {stamp}")
    for note in reply.notes:
        say(note)


def _if_lost(candidate: admin_pb2.Candidate) -> str:
    """The contingency in a few words."""
    heirs = sorted(zip(candidate.heir_share, candidate.heirs, strict=True), reverse=True)
    if not heirs:
        return "nobody could take over" if candidate.share > 0 else ""
    to = ", ".join(f"{name} {share:.0%}" for share, name in heirs)
    return f"{to}; fullest then {candidate.fullest_if_lost} at {candidate.fullest_utilization:.0%}"


@explain.command("dns")
@click.argument("name")
@click.option("--from", "client_ip", required=True, metavar="IP", help="The client's address.")
@click.option(
    "--type", "record_type", default="A", show_default=True, metavar="TYPE",
    shell_complete=lambda _context, _parameter, begun: [one for one in _TYPES if one.startswith(begun.upper())],
    help="A, AAAA, HTTPS, another type's name, or TYPE and its number.",
)  # fmt: skip
@click.option(
    "--frontend", envvar="GSLB_DNS", default="127.0.0.1:9053", show_default=True, show_envvar=True, metavar="HOST:PORT",
    help="The control port (--grpc) of the DNS frontend to ask.",
)  # fmt: skip
@with_format
def dns(name: str, client_ip: str, record_type: str, frontend: str, output: str) -> None:
    """Ask a DNS frontend what it would answer to a client, and why."""
    try:
        address = parse_addresses(frontend)[0]
    except AddressError as error:
        raise click.UsageError(f"--frontend: {error}") from error
    request = dns_pb2.ExplainDnsRequest(name=name, client_ip=client_ip, type=record_type)
    with sync_channel(address) as channel:
        try:
            reply = dns_pb2_grpc.DnsFrontendStub(channel).Explain(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            code, details = refusal_of(error)
            if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                message = "does not answer: is it running with --grpc? (name it with --frontend or GSLB_DNS)"
                raise click.ClickException(f"the DNS frontend at {address} {message}") from error
            raise click.ClickException(f"the DNS frontend at {address} says: {details}") from error
    shares = zip(reply.datacenters, reply.share, strict=True)
    usable = zip(reply.datacenters, reply.usable_share, strict=False)
    row = {
        "name": reply.name, "service": reply.service, "locality": reply.locality, "matched_prefix": reply.matched_prefix,
        "chosen": reply.chosen, "answers": list(reply.answers), "ttl_s": reply.ttl_s, "scope": reply.scope,
        "reason": reply.reason, "stamp": f"{reply.stamp.incarnation}.{reply.stamp.epoch}.{reply.stamp.version}",
        "plan_age_s": reply.plan_age_s, "source": reply.source,
        "age_s": reply.age_s, "matched_source": reply.matched_source, "place": reply.place,
        "extended_errors": list(reply.extended_errors),
        "shares": {datacenter: round(share, 4) for datacenter, share in shares},
        "usable_shares": {name: round(share, 4) for name, share in usable},
    }  # fmt: skip
    if output in {"table", "wide"}:
        keys = [column.key for column in DNS] + ["plan_age_s", "age_s", "shares", "usable_shares", "extended_errors"]
        rows = [
            {"what": key.replace("_", " "), "value": row[key] if row[key] not in ({}, []) else None} for key in keys
        ]
        show(output, rows, (Column("what", "what"), Column("value", "value")))
    else:
        show(output, [row], DNS)
