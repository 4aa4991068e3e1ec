"""Protobuf fields put together from parts that are already serialised, so that many streams share the same bytes.

A message on the wire is the concatenation of its fields (protobuf.dev/programming-guides/encoding): a length-delimited
field is its key, its length, its bytes. What a service's update is made of is encoded once, whoever reads it.
"""

from gslb.model.endpoint import ServiceEndpoint
from gslb.v1 import discovery_pb2
from gslb.wire.codec import encode_endpoint

_UPDATE = discovery_pb2.Update.DESCRIPTOR.fields_by_name
_SERVICE = discovery_pb2.ServiceUpdate.DESCRIPTOR.fields_by_name
UPDATE_SERVICES = _UPDATE["services"].number
UPDATE_CATALOG = _UPDATE["catalog"].number
SERVICE_CONFIG = _SERVICE["config"].number
SERVICE_PLAN = _SERVICE["plan"].number
SERVICE_UPSERTED = _SERVICE["upserted"].number


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, payload: bytes) -> bytes:
    """One length-delimited field (a message, string or bytes)."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def endpoint_field(endpoint: ServiceEndpoint) -> bytes:
    """The endpoint as a field `upserted` of a ServiceUpdate."""
    return field(SERVICE_UPSERTED, encode_endpoint(endpoint).SerializeToString())
