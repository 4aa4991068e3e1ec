"""Protobuf <-> model: every name that other packages use, in one place.

`encode_*` and `decode_*` work on messages, `*_to_bytes` and `*_from_bytes` on stored records. Whatever arrives is
checked against its bounds; what is not acceptable raises InvalidValueError that names the value.
"""

from bns.codec import decode_health, encode_health
from gslb.wire.endpoints import decode_endpoint, encode_endpoint
from gslb.wire.plans import (
    checksum_of,
    decode_plan,
    decode_stamp,
    encode_plan,
    encode_stamp,
    plan_from_bytes,
    plan_to_bytes,
)
from gslb.wire.resources import (
    decode_resource,
    decode_scope,
    decode_service,
    decode_source,
    encode_meta,
    encode_resource,
    encode_scope,
    encode_service,
    encode_source,
    resource_from_bytes,
    resource_to_bytes,
)

__all__ = [
    "checksum_of",
    "decode_endpoint",
    "decode_health",
    "decode_plan",
    "decode_resource",
    "decode_scope",
    "decode_service",
    "decode_source",
    "decode_stamp",
    "encode_endpoint",
    "encode_health",
    "encode_meta",
    "encode_plan",
    "encode_resource",
    "encode_scope",
    "encode_service",
    "encode_source",
    "encode_stamp",
    "plan_from_bytes",
    "plan_to_bytes",
    "resource_from_bytes",
    "resource_to_bytes",
]
