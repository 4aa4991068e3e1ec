"""Ten thousand slow TCP connections: what is left of UDP, and how long a good TCP query takes."""

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import dns.exception
import dns.message
import dns.query

from bench.dns import world
from bench.dns.load import LOAD_CORE, dnsperf
from bench.dns.peers import Server
from bench.rows import Row, quantile_row, spread
from bench.stage import BenchError, Stage, progress

CONNECTIONS: Final = 10_000
RATE: Final = 20_000  # queries a second offered over UDP, with and without the others
_TRIES: Final = 20
_SETTLE_S: Final = 2.0
_TIMEOUT_S: Final = 10.0


def rows(stage: Stage, server: Server, queries: Path, rounds: int, seconds: float) -> list[Row]:
    """Rounds without and with the slow connections, in turns."""
    ratios: list[float] = []
    waits: list[float] = []
    opened: list[int] = []
    offered = ("-Q", str(RATE))
    try:
        for number in range(rounds):
            progress(f"{server.label}: {CONNECTIONS} slow connections, round {number + 1} of {rounds}")
            alone = dnsperf(stage, server, queries, seconds, offered)
            attack = _attack(server, _SETTLE_S + seconds + _TRIES * 0.1 + 1)
            time.sleep(_SETTLE_S)
            among = dnsperf(stage, server, queries, seconds, offered)
            waits += [_tcp_s(server) for _ in range(_TRIES)]
            opened.append(int(attack.communicate(timeout=120)[0]))
            ratios.append(among.per_wall_s / alone.per_wall_s)
    except BenchError as error:
        return [Row(f"{server.label}: UDP beside {CONNECTIONS} slow TCP connections", None, "x", str(error))]
    note = f"{spread(ratios)}; {RATE} q/s offered, {min(opened)} connections opened or more"
    return [
        Row(
            f"{server.label}: UDP beside {CONNECTIONS} slow TCP connections, over UDP alone",
            statistics.median(ratios),
            "x",
            note,
            at_least=0.95,
        ),
        quantile_row(f"{server.label}: a good TCP query among them", waits, 0.99, "s", at_most=1.0),
    ]


def _attack(server: Server, seconds: float) -> "subprocess.Popen[bytes]":
    words = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "bench.dns.slow_clients"]
    return subprocess.Popen([*words, str(server.port), str(CONNECTIONS), f"{seconds:g}"], stdout=subprocess.PIPE)


def _tcp_s(server: Server) -> float:
    """Seconds that one query takes, connecting included; the timeout if it is not answered."""
    time.sleep(0.1)
    begin = time.monotonic()
    try:
        dns.query.tcp(dns.message.make_query(world.names()[7], "A"), "127.0.0.1", _TIMEOUT_S, server.port)
    except (dns.exception.DNSException, OSError):
        return _TIMEOUT_S
    return time.monotonic() - begin
