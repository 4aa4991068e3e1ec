"""Who among equals is refused last: a number that one trace id has everywhere. PURE.

Work that needs several calls is of no use unless all of them succeed. When servers and clients each refuse at random half
of what they get, of the tasks with four calls a sixteenth is left. When all refuse the same ones, half is (DAGOR: Zhou et
al., "Overload Control for Scaling WeChat Microservices", 2018). So who is refused hangs on the trace id, which every
call made for one request carries, and on nothing that differs between places.
"""

from typing import Final
from zlib import crc32

_SPAN: Final = float(2**32)


def rank_of(trace_id: str) -> float:
    """In [0, 1), spread evenly over trace ids, the same in every process; the lower ranks are refused last."""
    return crc32(trace_id.encode("utf-8", "surrogatepass")) / _SPAN
