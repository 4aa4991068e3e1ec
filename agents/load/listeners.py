"""Which process listens where: how the process of a task is found that nobody named."""

from collections.abc import Mapping

import psutil

Listener = tuple[str, int]  # address, port


def listeners() -> Mapping[Listener, int]:
    """(address, port) -> pid of the TCP listeners that may be seen. Blocking: reads /proc.

    Of several processes that share a listening socket (a server that forked workers) the oldest is taken: its tree
    holds the others.
    """
    found: dict[Listener, int] = {}
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return found
    for connection in connections:
        if connection.status != psutil.CONN_LISTEN or not connection.pid or not connection.laddr:
            continue
        key = (connection.laddr.ip, connection.laddr.port)
        found[key] = min(connection.pid, found.get(key, connection.pid))
    return found
