"""Where the client of a query is, and what of its address an answer depends on."""

from typing import NamedTuple

from dns_frontend.responder.edns import ClientSubnet
from dns_frontend.table.serving import Serving
from dns_frontend.table.steering import KEY_BITS, Steered, client_key


class Source(NamedTuple):
    """An IP address as its version and its number."""

    version: int
    value: int


class Located(NamedTuple):
    """A client on the map. `told`: by client subnet, so that the answer's scope may be above zero."""

    version: int
    value: int
    locality: str  # "" when no area has the address and no default is set
    scope: int  # length of the prefix in which every address has this locality
    told: bool

    @property
    def key(self) -> bytes:
        """What clients that are steered alike have in common."""
        return client_key(self.version, self.value)

    def scope_of(self, steered: Steered) -> int:
        """The scope prefix length of an answer (RFC 7871 section 7.2.1): exactly what it depends on, and no more.

        All clients of one block of the map get one scope, so that scopes never overlap.
        """
        if not self.told:
            return 0
        scope = self.scope if steered.by_locality else 0
        return max(scope, KEY_BITS[self.version]) if steered.by_key else scope


def locate(serving: Serving, subnet: ClientSubnet | None, source: Source, default_locality: str = "") -> Located:
    """Client subnet when there is one, else the address the query came from: the resolver's.

    Then the longest of the operator's prefixes. A client outside all of them gets `default_locality`, which the
    operator of an anycast site sets to what is near it; without one, `gslb.steer` takes all localities together.
    """
    told = subnet is not None and subnet.version != 0
    version, value = (subnet.version, subnet.value) if subnet is not None and told else source
    match = serving.cidrs.find(version, value)
    return Located(version, value, match.locality or default_locality, match.scope, told)
