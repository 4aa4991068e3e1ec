"""An agent is killed with -9: its tasks stay in the plan, nothing fails; it comes back and adopts them."""

import asyncio
import time
from typing import Any

from gslb.demo.checks.bench import Bench
from gslb.demo.layout import BACKEND_SERVICE

DATACENTER = "europe-west1"
AWAY_S = 20.0


async def check_agent(bench: Bench) -> dict[str, Any]:
    """Kill the agent, watch its tasks, start it again."""
    start_s = time.monotonic()
    label = f"{DATACENTER}-agent"
    names = [task.name for task in bench.planet.tasks if task.site.name == DATACENTER]
    before = await bench.backend_status(BACKEND_SERVICE, DATACENTER)
    await bench.planet.supervisor.kill(label)
    least_tasks, least_load_rps = before.tasks, before.load_rps
    while time.monotonic() - start_s < AWAY_S:
        seen = await bench.backend_status(BACKEND_SERVICE, DATACENTER)
        least_tasks, least_load_rps = min(least_tasks, seen.tasks), min(least_load_rps, seen.load_rps)
        await asyncio.sleep(0.5)
    bench.planet.supervisor.restart(label)

    async def adopted() -> bool:
        status = await bench.planet.status()
        mine = [agent for agent in status.agents if agent.datacenter == DATACENTER]
        return bool(mine) and mine[0].alive and mine[0].tasks == len(names) and mine[0].report_age_s < 5.0

    adopted_s = await bench.until(adopted, 30.0)
    healthy_s = await bench.until(lambda: bench.healthy(names), 30.0)
    failures = bench.failures(start_s)
    return {
        "ok": failures == 0
        and least_tasks == before.tasks
        and least_load_rps > before.load_rps / 2
        and adopted_s is not None
        and healthy_s is not None,
        "failures": failures,
        "failed": bench.failures_shown(start_s),
        "tasks_before": before.tasks,
        "tasks_least_meanwhile": least_tasks,
        "planned_rps_before": round(before.load_rps, 1),
        "planned_rps_least_meanwhile": round(least_load_rps, 1),
        "adopted_after_s": adopted_s,
    }
