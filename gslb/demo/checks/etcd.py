"""etcd stands still for 10 s, then is terminated and started again: serving goes on; afterwards registration works."""

import asyncio
import sys
import time
from typing import Any

from bns.v1 import bns_pb2, bns_pb2_grpc
from gslb.demo.checks.bench import Bench
from gslb.demo.layout import SITE_NAMED
from gslb.demo.planet import RPC_TIMEOUT_S
from gslb.demo.supervisor import ProcessSpec

PAUSED_S = 10.0
DOWN_S = 3.0
NEW_TASK = "/bns/us-east1/demo/after-etcd/0"


async def check_etcd(bench: Bench) -> dict[str, Any]:
    """Pause, resume, terminate, restart, register."""
    start_s = time.monotonic()
    dns_failures = bench.traffic.dns_failures()
    etcd = bench.planet.etcd
    etcd.pause()
    await asyncio.sleep(PAUSED_S)
    etcd.resume()
    await asyncio.sleep(5.0)
    etcd.terminate()
    await asyncio.sleep(DOWN_S)
    etcd.spawn()
    await etcd.ready()
    registered_s = await _register(bench)
    failures = bench.failures(start_s)
    dns_failures = bench.traffic.dns_failures() - dns_failures
    return {
        "ok": failures == 0 and dns_failures == 0 and registered_s is not None,
        "failures": failures,
        "failed": bench.failures_shown(start_s),
        "dns_failures": dns_failures,
        "registered_after_s": registered_s,
    }


async def _register(bench: Bench) -> float | None:
    """Seconds until a task registered with `bns register` is resolved; None when that failed."""
    agent = f"unix:{bench.planet.socket(SITE_NAMED['us-east1'])}"
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    spec = ProcessSpec("after-etcd", "bns", ("register", "--agent", agent, NEW_TASK, "127.1.9.1:9", "--", *command))
    bench.planet.supervisor.start(spec)

    async def resolved() -> bool:
        stub: Any = bns_pb2_grpc.BnsStub(bench.planet.channel(bench.planet.replicas[0].address))
        reply = await stub.Resolve(bns_pb2.ResolveRequest(name=NEW_TASK), timeout=RPC_TIMEOUT_S)
        return len(reply.endpoints) == 1

    took_s = await bench.until(resolved, 30.0)
    await bench.planet.supervisor.terminate("after-etcd")
    return took_s
