"""For a client subnet of each of the four areas, the answer is the GFE of the nearest datacenter."""

import random
from typing import Any

from gslb.demo.checks.bench import Bench
from gslb.demo.layout import CLIENT_NETWORKS_PER_AREA, SITES, WEB_NAME, site_of_address
from gslb.demo.resolver import Resolver

SETTLED_TIMEOUT_S = 60.0


async def check_dns(bench: Bench) -> dict[str, Any]:
    """Asks each frontend for each client network."""
    # What was asked in the moment of the start looks like more than it was.
    await bench.settled(SETTLED_TIMEOUT_S)
    answers: dict[str, str] = {}
    wrong: list[str] = []
    for server in bench.planet.dns_servers:
        for site in SITES:
            for network in range(CLIENT_NETWORKS_PER_AREA):
                resolver = Resolver([server], site.client_subnet(network), random.Random(network))
                answer = await resolver.query(WEB_NAME)
                places = {site_of_address(address) for address in answer.addresses}
                answers[f"{server} {site.client_subnet(network)}"] = ",".join(answer.addresses)
                if places != {site.name}:
                    wrong.append(f"{server} {site.client_subnet(network)}: {sorted(places)}, not {site.name}")
    return {"ok": not wrong, "queries": len(answers), "wrong": wrong, "answers": answers}
