"""A service and a client to records, through the same `gslb.steer` as every other reader. PURE.

Each address family is steered by itself, over the datacenters that serve in that family: with both families everywhere
the choice is the same for A and AAAA (one key, one set of shares), and a datacenter without IPv6 never makes AAAA empty
while another one has it.

What the answer depends on is said with it: on the client's locality when more than one datacenter may serve, and on the
client's own prefix when shares are split or a datacenter has more addresses than an answer carries. A resolver that
answers many clients from one cache entry needs exactly that (RFC 7871).
"""

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dns_frontend.table.bns import Job, jobs_of
from dns_frontend.table.https import https_head, https_rdata
from dns_frontend.zone.rtype import RType
from gslb.model import limits
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.plan import Shares
from gslb.model.resources import Catalog
from gslb.steer.choice import live_shares, shares_for, stable_choice
from gslb.steer.view import Endpoints, ServiceView

# Clients of one such prefix are steered alike: a network that moves between two addresses of it does not flap.
KEY_BITS: Final[Mapping[int, int]] = {4: 24, 6: 56}  # by IP version
_VERSION_OF: Final[Mapping[int, int]] = {int(RType.A): 4, int(RType.AAAA): 6}
_ADDRESS_BITS: Final[Mapping[int, int]] = {4: 32, 6: 128}


class Steered(NamedTuple):
    """The records for one client, in rdata form, and what they depend on."""

    datacenter: str
    rdatas: tuple[bytes, ...]
    by_locality: bool
    by_key: bool
    turns: int  # different orders in which the same addresses are given


class _Row(NamedTuple):
    """One locality of one family: where its clients may go. `sole` when that is one datacenter."""

    shares: Shares
    sole: str


@dataclass(frozen=True, slots=True, eq=False)
class _Family:
    view: ServiceView  # the service's, with the endpoints of this family only
    rdatas: Mapping[str, tuple[bytes, ...]]  # by datacenter that serves; no address twice (RFC 2181 section 5)
    rows: dict[str, _Row] = field(default_factory=dict)  # by locality, made when first asked for


@dataclass(frozen=True, slots=True, eq=False)
class SteeredService:
    """One service made ready to answer. Make it with `prepare`; another view or catalog needs another."""

    view: ServiceView
    catalog: Catalog
    ttl_s: int
    addresses_per_answer: int
    families: Mapping[int, _Family]  # by record type; absent: no endpoint has such an address
    https: bytes = b""  # what its HTTPS record says before the hints; empty: its names have none
    jobs: Mapping[bytes, Job] = field(default_factory=dict)  # for names of tasks, when those are served

    def steer(self, rtype: int, locality: str, key: bytes, turn: int = 0) -> Steered | None:
        """The records of type A, AAAA or HTTPS for a client; None when no endpoint of the service has such an address.

        `key` is the client's prefix, see `client_key`. `turn` decides which address comes first.
        """
        if rtype == RType.HTTPS:
            return self._https(locality, key, turn)
        family = self.families.get(rtype)
        if family is None:
            return None
        row = family.rows.get(locality) or self._row(family, locality)
        split = not row.sole
        mixed = self.view.name.encode() + b"\x00" + key
        datacenter = row.sole or stable_choice(row.shares, mixed) or next(iter(family.rdatas))
        rdatas = family.rdatas[datacenter]
        excess = len(rdatas) > self.addresses_per_answer
        if excess:
            rdatas = _window(rdatas, self.addresses_per_answer, mixed)
        return Steered(
            datacenter, rotated(rdatas, turn), len(family.rdatas) > 1, by_key=split or excess, turns=len(rdatas)
        )

    def _https(self, locality: str, key: bytes, turn: int) -> Steered | None:
        """One record with the addresses of both families as hints, the datacenter that of the first."""
        found = {rtype: steered for rtype in self.families if (steered := self.steer(rtype, locality, key)) is not None}
        if not self.https or not found:
            return None
        turns = max(steered.turns for steered in found.values())
        hints = (
            rotated(found[rtype].rdatas, turn % turns) if rtype in found else () for rtype in (RType.A, RType.AAAA)
        )
        return Steered(
            next(iter(found.values())).datacenter,
            (https_rdata(self.https, *hints),),
            by_locality=any(steered.by_locality for steered in found.values()),
            by_key=any(steered.by_key for steered in found.values()),
            turns=turns,
        )

    def _row(self, family: _Family, locality: str) -> _Row:
        shares = live_shares(family.view, locality, self.catalog)
        used = [name for name, share in shares.items() if share > 0]
        row = _Row(shares, used[0] if len(used) == 1 else "")
        # Localities are names from the catalog: their number is bounded, and so is this memory.
        if len(family.rows) < limits.LOCALITIES_MAX:
            family.rows[locality] = row
        return row

    def planned_shares(self, locality: str) -> Shares:
        """What the plan says for a locality, whatever is alive."""
        return shares_for(self.view, locality, self.catalog)

    def usable_shares(self, rtype: int, locality: str) -> Shares:
        """What is left of `planned_shares` over datacenters that serve in this family; empty without any.

        For HTTPS: in the family that its datacenter is chosen by.
        """
        family = self.families.get(rtype) if rtype != RType.HTTPS else next(iter(self.families.values()), None)
        return live_shares(family.view, locality, self.catalog) if family else {}

    def panic(self, rtype: int) -> bool:
        """Whether no endpoint of this family (HTTPS: of one of both) is healthy, so that others are given."""
        if rtype == RType.HTTPS:
            return any(family.view.panic for family in self.families.values())
        family = self.families.get(rtype)
        return family is not None and family.view.panic


def prepare(view: ServiceView, catalog: Catalog, *, with_bns: bool = False) -> SteeredService:
    """Lays out a service for answering; O(its endpoints). `with_bns`: its tasks have names of their own."""
    service = view.service
    families = {
        rtype: family for rtype, version in _VERSION_OF.items() if (family := _family(view, version)) is not None
    }
    return SteeredService(
        view,
        catalog,
        service.ttl_s if service else limits.TTL_DEFAULT_S,
        service.addresses_per_answer if service else limits.ADDRESSES_PER_ANSWER_DEFAULT,
        families,
        https_head(service.alpn, {one.port for one in view.endpoints.values()}) if service and service.alpn else b"",
        jobs_of(view) if with_bns else {},
    )


def _family(view: ServiceView, version: int) -> _Family | None:
    members = {task: endpoint for task, endpoint in view.endpoints.items() if _version(endpoint) == version}
    if not members:
        return None
    own = view if len(members) == len(view.endpoints) else view.with_endpoints(members, view.condemned)
    return _Family(own, {name: _rdatas(endpoints) for name, endpoints in own.serving.items()})


def _version(endpoint: ServiceEndpoint) -> int:
    return 6 if ":" in endpoint.address else 4


def _rdatas(endpoints: Endpoints) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(ipaddress.ip_address(endpoint.address).packed for endpoint in endpoints))


def _window(rdatas: tuple[bytes, ...], count: int, key: bytes) -> tuple[bytes, ...]:
    """`count` neighbours on the ring of addresses, beginning where the key falls."""
    hashed = int.from_bytes(hashlib.blake2b(key, digest_size=8, person=b"window").digest(), "big")
    begin = hashed * len(rdatas) >> 64
    return (rdatas[begin:] + rdatas[:begin])[:count] if begin + count > len(rdatas) else rdatas[begin : begin + count]


def client_key(version: int, value: int) -> bytes:
    """What clients steered alike have in common: the IP version and the /24 or /56 that holds the address."""
    drop = _ADDRESS_BITS[version] - KEY_BITS[version]
    return bytes((version,)) + (value >> drop << drop).to_bytes(_ADDRESS_BITS[version] // 8, "big")


def rotated(rdatas: tuple[bytes, ...], by: int) -> tuple[bytes, ...]:
    """The same addresses, beginning with another: spreads those who always take the first."""
    if len(rdatas) < 2:
        return rdatas
    begin = by % len(rdatas)
    return rdatas[begin:] + rdatas[:begin]
