"""A service's endpoint <-> protobuf."""

import ipaddress
import math
from functools import lru_cache

from bns.codec import decode_health, encode_health
from bns.names import InvalidNameError, parse_task
from gslb.model import limits
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.errors import InvalidValueError
from gslb.model.grammar import shown
from gslb.v1 import discovery_pb2


def encode_endpoint(endpoint: ServiceEndpoint) -> discovery_pb2.ServiceEndpoint:
    """The wire form of an endpoint."""
    return discovery_pb2.ServiceEndpoint(
        task=endpoint.task,
        address=endpoint.address,
        port=endpoint.port,
        health=encode_health(endpoint.health),
        weight=endpoint.weight,
        started_s=endpoint.started_s,
    )


def decode_endpoint(endpoint: discovery_pb2.ServiceEndpoint) -> ServiceEndpoint:
    """Raises InvalidValueError naming the task and the value. A health of a newer server is UNKNOWN."""
    try:
        parse_task(endpoint.task)
    except InvalidNameError as error:
        raise InvalidValueError(f"endpoint: {error}") from error
    if not 1 <= endpoint.port <= 65_535:
        raise InvalidValueError(f"endpoint {endpoint.task}: port {endpoint.port} is not from 1 to 65535")
    # Protobuf leaves a weight that the server did not give at zero.
    weight = endpoint.weight or 1.0
    if not (math.isfinite(weight) and 0 < weight <= limits.WEIGHT_MAX):
        raise InvalidValueError(
            f"endpoint {endpoint.task}: weight {weight!r} is not above 0 and at most {limits.WEIGHT_MAX:g}"
        )
    return ServiceEndpoint(
        task=endpoint.task,
        address=_address(endpoint.address, endpoint.task),
        port=endpoint.port,
        health=decode_health(endpoint.health),
        weight=weight,
        # Of use for a slow start only: a time that makes no sense is no reason to lose the endpoint.
        started_s=endpoint.started_s if math.isfinite(endpoint.started_s) and endpoint.started_s > 0 else 0.0,
    )


def _address(text: str, task: str) -> str:
    address = _canonical(text)
    if address is None:
        raise InvalidValueError(f"endpoint {task}: address {shown(text)} is not an IPv4 or IPv6 address of a machine")
    return address


@lru_cache(maxsize=65_536)
def _canonical(text: str) -> str | None:
    """The address in its one spelling, None when nobody could connect to it.

    Remembered, because health changes far more often than addresses do.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    scoped = isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None
    return None if scoped or address.is_unspecified or address.is_multicast else str(address)
