"""What a task says of its load, as a short line of text: in a trailer of its answers, and in answer to a probe. PURE.

gRPC's own trailer for this (`endpoint-load-metrics-bin`) does not reach Python clients: the C core takes it away. So the
same numbers go in a second one, as `name=number` pairs. What a reader does not know it skips; a number that is missing,
negative, absurd or no number is 0, and too long a line is none: a server that lies must not break its clients.
"""

import struct
from typing import Final

from gslb.rpc.policy.choice import Report

KEY: Final = "gslb-load"
ORCA_KEY: Final = "endpoint-load-metrics-bin"
MAX_CHARS: Final = 256
# Beyond these no load is, and arithmetic overflows.
_NUMBER_MIN: Final = 1e-9
_NUMBER_MAX: Final = 1e9
_FIELDS: Final = (
    ("in_flight", "rif"),
    ("latency_s", "lat"),
    ("utilization", "util"),
    ("rps", "rps"),
    ("eps", "eps"),
    ("room", "room"),
    ("clients", "clients"),
)


def encode(report: Report) -> str:
    """
    >>> encode(Report(in_flight=3, latency_s=0.0125, rps=80))
    'rif=3 lat=0.0125 rps=80'
    """
    values = ((short, getattr(report, name)) for name, short in _FIELDS)
    return " ".join(f"{short}={value:.6g}" for short, value in values if value > 0)


def orca(report: Report) -> bytes:
    """The same as a message xds.data.orca.v3.OrcaLoadReport, for clients in other languages: doubles 6, 7 and 9.

    >>> orca(Report(utilization=0.5)).hex()
    '49000000000000e03f'
    """
    numbers = ((6, report.rps), (7, report.eps), (9, report.utilization))
    return b"".join(struct.pack("<Bd", number << 3 | 1, value) for number, value in numbers if value > 0)


def decode(text: str | bytes) -> Report | None:
    """What a line says; None: it is too long to be looked at.

    >>> decode("rif=3 lat=nan util=-1 colour=blue rps=80")
    Report(in_flight=3.0, latency_s=0.0, utilization=0.0, rps=80.0, eps=0.0, room=0.0, clients=0.0)
    """
    if len(text) > MAX_CHARS:
        return None
    line = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    found = dict.fromkeys((name for name, _ in _FIELDS), 0.0)
    names = {short: name for name, short in _FIELDS}
    for pair in line.split():
        short, _, value = pair.partition("=")
        if short in names:
            found[names[short]] = _number(value)
    return Report(**found)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if _NUMBER_MIN <= value <= _NUMBER_MAX else 0.0
