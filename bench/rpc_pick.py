"""What a choice costs: plan and endpoint pick without an RPC, and the library's part of a whole call.

`rows()` for `make bench`; alone: `python -m bench.rpc_pick`. Shapes: a client with 3 datacenters of 20 tasks each in its
shares, which is what subsetting will give each client of a large service, and one with 1,000 tasks.
"""

import json
import random
import time
from collections.abc import Callable

from typing_extensions import override

from bench.rows import Row, median_row
from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Catalog
from gslb.rpc.client.attempts import Attempts
from gslb.rpc.client.core import L, ServiceCore
from gslb.rpc.client.link import Link, LoadSaid, ProbeDone
from gslb.rpc.client.protection import Outcome
from gslb.rpc.client.settings import Settings
from gslb.rpc.client.timers import Timers
from gslb.rpc.policy.table import build_table
from gslb.steer.view import ServiceView

_ROUNDS = 9
_CALLS = 20_000
PICK_GOAL_US = 2.0


class _Link(Link):
    """A task that nobody dials."""

    @override
    def probe(self, timeout_s: float, done: ProbeDone, *, patient: bool = True) -> None:
        """Never asked."""

    @override
    def ask_load(self, timeout_s: float, said: LoadSaid, question: bytes = b"") -> None:
        """Never asked."""

    @override
    def shut(self) -> None:
        """Nothing to close."""


class SilentFeed:
    """A control connection that says nothing."""

    def __init__(self) -> None:
        self.timers = Timers("bench")

    def attach(self, core: ServiceCore[L]) -> None:
        """No views come by themselves."""

    def detach(self, core: ServiceCore[L]) -> None:
        """Nothing is reported."""

    def describe(self) -> str:
        return "bench"

    def unknown(self, service: str) -> bool:
        return not service


def view_of(datacenters: int, tasks: int) -> ServiceView:
    """A service with that many tasks in each of that many datacenters, shares falling off with distance."""
    names = [f"dc{i}" for i in range(datacenters)]
    weights = [2.0**-i for i in range(datacenters)]
    shares = {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True)}
    endpoints = {
        f"/bns/{name}/u/j/{i}": ServiceEndpoint(
            f"/bns/{name}/u/j/{i}", f"127.{number}.{i >> 8}.{i & 255}", 80, HealthStatus.HEALTHY
        )
        for number, name in enumerate(names)
        for i in range(tasks)
    }
    return ServiceView.build("s", plan=Plan("s", Stamp(1, 1, 1), shares={"dc0": shares}), endpoints=endpoints)


def core_of(view: ServiceView) -> ServiceCore[_Link]:
    """A channel's core that holds this view."""
    settings = Settings("s", "dc0", "bench", lambda _method: True)
    core: ServiceCore[_Link] = ServiceCore(settings, SilentFeed(), _Link)
    core.on_view(view, Catalog())
    return core


def microseconds(call: Callable[[], object], calls: int = _CALLS) -> list[float]:
    """CPU time of one call in each of several rounds, in us; the loop's own is left in.

    CPU time and not wall time: what else the machine does is no cost of ours.
    """
    found = []
    for _ in range(_ROUNDS):
        started_s = time.thread_time()
        for _ in range(calls):
            call()
        found.append((time.thread_time() - started_s) / calls * 1e6)
    return found


def _whole_call(core: ServiceCore[_Link]) -> None:
    attempts = Attempts(core, "/s/m", 1.0, None)
    attempts.first()
    attempts.remaining_s()
    attempts.succeeded()


def _begin_and_finish(core: ServiceCore[_Link]) -> None:
    link = core.begin([])
    if link is not None:
        core.finish(link, Outcome())


def measured() -> list[Row]:
    """All rows."""
    table = []
    for datacenters, tasks in ((1, 20), (3, 20), (3, 1000)):
        core = core_of(view_of(datacenters, tasks))
        shape = f"{datacenters} datacenter(s) x {tasks} tasks"
        table.append(median_row(f"rpc: pick, {shape}", microseconds(core.pick), "us", PICK_GOAL_US))
    core = core_of(view_of(3, 20))
    table.append(median_row("rpc: pick, count in flight, release", microseconds(lambda: _begin_and_finish(core)), "us"))
    table.append(
        median_row(
            "rpc: our whole part of a call (demand, budget, metadata, deadline)",
            microseconds(lambda: _whole_call(core)),
            "us",
        )
    )
    view = view_of(3, 1000)
    members = {task: _Link(endpoint) for task, endpoint in view.endpoints.items()}
    rebuilt = microseconds(lambda: build_table(view, members, "dc0", Catalog()), 20)
    table.append(median_row("rpc: table rebuilt after a change, 3,000 tasks", [us / 1000 for us in rebuilt], "ms"))
    return table


def rows() -> list[dict[str, object]]:
    """For `make bench`."""
    random.seed(1)
    return [row.as_json() for row in measured()]


if __name__ == "__main__":
    for row in rows():
        print(json.dumps(row))
