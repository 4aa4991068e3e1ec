"""BNS in DNS: the tasks behind services, by name. PURE.

    TASK.JOB.USER.DATACENTER.bns.ZONE           A or AAAA: the task's address, whatever its health
    _PORT._tcp.JOB.USER.DATACENTER.bns.ZONE     SRV: the job's tasks that may get requests, weighted by capacity

PORT is the named port that a service's clients use, `main` for the main one. As everywhere, healthy tasks are given; if
there is none, all that are not draining; else all (invariant 2). A job of more tasks than an answer should carry gives
each client some neighbours on the ring of its tasks, as steered names do.

Names are looked up in what the services hold anyway, so that a change of one endpoint lays out one service.
"""

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from dns_frontend.table.model import OwnedRRset
from dns_frontend.zone.name import from_text
from dns_frontend.zone.records import RRset
from dns_frontend.zone.rtype import RType
from gslb.model import limits
from gslb.model.endpoint import ServiceEndpoint
from gslb.steer.view import ServiceView, serving

if TYPE_CHECKING:
    from dns_frontend.table.steering import SteeredService

BNS_LABEL: Final = b"\x03bns"
MAIN_PORT: Final = "main"
SRV_RECORDS_MAX: Final = 16  # about as many as fit into one datagram
_TCP: Final = b"\x04_tcp"
_WEIGHT_MAX: Final = 1000


class _Target(NamedTuple):
    """One task as SRV gives it."""

    label: bytes  # in wire form
    weight: int
    port: int


@dataclass(frozen=True, slots=True)
class Job:
    """One job of one service. Names are relative: labels in wire form, without what follows them."""

    port_label: bytes  # such as \x05_http
    ttl_s: int
    addresses: Mapping[bytes, bytes]  # by task: 4 or 16 octets
    targets: tuple[_Target, ...]


class Found(NamedTuple):
    """What is at a name. `by_key`: it depends on the client's prefix."""

    rrsets: Mapping[int, RRset]
    extras: tuple[OwnedRRset, ...] = ()
    by_key: bool = False


_NOTHING: Final = Found({})


def jobs_of(view: ServiceView) -> dict[bytes, Job]:
    """The jobs of a service, by JOB.USER.DATACENTER; O(its endpoints)."""
    grouped: dict[str, list[ServiceEndpoint]] = {}
    for endpoint in view.endpoints.values():
        grouped.setdefault(endpoint.task.rpartition("/")[0], []).append(endpoint)
    service = view.service
    port = service.port_name if service else ""
    ttl_s = service.ttl_s if service else limits.TTL_DEFAULT_S
    return {
        _relative(".".join(reversed(path.split("/")[2:]))): Job(
            _relative(f"_{port or MAIN_PORT}"),
            ttl_s,
            {_label(one): ipaddress.ip_address(one.address).packed for one in members},
            _targets(members),
        )
        for path, members in grouped.items()
    }


def _relative(text: str) -> bytes:
    return from_text(text)[:-1]


def _label(endpoint: ServiceEndpoint) -> bytes:
    task = endpoint.task.rpartition("/")[2].encode()
    return bytes((len(task),)) + task


def _targets(members: list[ServiceEndpoint]) -> tuple[_Target, ...]:
    chosen = sorted(serving(members), key=lambda endpoint: endpoint.task)
    most = max(endpoint.weight for endpoint in chosen)
    return tuple(
        _Target(_label(one), max(1, round(_WEIGHT_MAX * one.weight / most)) if most > 0 else 1, one.port)
        for one in chosen
    )


@dataclass(frozen=True, slots=True)
class BnsIndex:
    """Which services have a job, and the names above jobs, which exist and have no records."""

    services: Mapping[bytes, tuple[str, ...]] = field(default_factory=dict)  # by JOB.USER.DATACENTER
    above: frozenset[bytes] = frozenset()
    keys: Mapping[str, frozenset[bytes]] = field(default_factory=dict)  # what it was made of: jobs by service

    def advance(self, jobs: Mapping[str, Mapping[bytes, Job]]) -> "BnsIndex":
        """The index of these jobs (by service); this very one when they are the same."""
        keys = {service: frozenset(found) for service, found in jobs.items()}
        if keys == self.keys:
            return self
        services: dict[bytes, tuple[str, ...]] = {}
        above: set[bytes] = set()
        for service in sorted(keys):
            for job in keys[service]:
                services[job] = (*services.get(job, ()), service)
                user = job[1 + job[0] :]
                above |= {user, user[1 + user[0] :]}
        return BnsIndex(services, frozenset(above), keys)

    def find(
        self, services: Mapping[str, "SteeredService"], relative: bytes, origin: bytes, key: bytes
    ) -> Found | None:
        """What is at `relative`, a name below `origin` without that; None: there is no such name.

        `key`: the client's prefix. One or two lookups for each service of the job, whose number is small.
        """
        if relative in self.above or relative in self.services:
            return _NOTHING
        first, rest = _split(relative)
        jobs = [found for name in self.services.get(rest, ()) if (found := services[name].jobs.get(rest))]
        if jobs:
            return _NOTHING if first == _TCP else _task(jobs, first)
        second, job = _split(rest)
        if second != _TCP:
            return None
        jobs = [found for name in self.services.get(job, ()) if (found := services[name].jobs.get(job))]
        wanted = next((found for found in jobs if found.port_label == first), None)
        return _port(wanted, job + origin, key) if wanted is not None else None


def _split(relative: bytes) -> tuple[bytes, bytes]:
    """The first label, and what follows it."""
    end = 1 + relative[0] if relative else 0
    return relative[:end], relative[end:]


def _address(job: Job, label: bytes) -> RRset:
    octets = job.addresses[label]
    return RRset(int(RType.A if len(octets) == 4 else RType.AAAA), job.ttl_s, (octets,))


def _task(jobs: list[Job], label: bytes) -> Found | None:
    job = next((found for found in jobs if label in found.addresses), None)
    if job is None:
        return None
    rrset = _address(job, label)
    return Found({rrset.rtype: rrset})


def _port(job: Job, below: bytes, key: bytes) -> Found:
    """The SRV records of a job whose tasks have names below `below`."""
    targets = job.targets
    if excess := len(targets) > SRV_RECORDS_MAX:
        hashed = int.from_bytes(hashlib.blake2b(below + key, digest_size=8, person=b"srv").digest(), "big")
        begin = hashed * len(targets) >> 64
        targets = (targets[begin:] + targets[:begin])[:SRV_RECORDS_MAX]
    rdatas = tuple(
        b"\x00\x00" + target.weight.to_bytes(2, "big") + target.port.to_bytes(2, "big") + target.label + below
        for target in targets
    )
    extras = tuple(OwnedRRset(target.label + below, _address(job, target.label)) for target in targets)
    rrset = RRset(int(RType.SRV), job.ttl_s, rdatas)
    return Found({rrset.rtype: rrset}, extras, excess)
