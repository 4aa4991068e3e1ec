"""What each rule's choice costs in CPU, and what a request costs with its probes: drawing them, taking their answers in."""

import itertools
import random
from typing import Final

from bench.rows import Row, median_row
from bench.rpc_pick import PICK_GOAL_US, microseconds
from gslb.rpc.policy.adaptive import PROBES
from gslb.rpc.policy.choice import Report, Rule
from gslb.rpc.policy.member import Member
from gslb.rpc.policy.rules import ADAPTIVE, NAMES, PREQUAL, make_rule
from gslb.rpc.policy.subset import SIZE
from gslb.sim.replicas.board import fleet

_NOW_S: Final = 100.0


def rows(quick: bool) -> list[Row]:
    """All of them, over a subset of the usual size."""
    calls = 500 if quick else 20_000
    found = []
    for name in NAMES:
        if name != PREQUAL:  # its pool is used up by picking alone
            rule, _ = _told(name)
            found.append(median_row(f"rule {name}: pick, {SIZE} tasks", _picks(rule, calls), "us", PICK_GOAL_US))
    for name in (ADAPTIVE, PREQUAL):
        rule, members = _told(name)
        what = f"rule {name}: pick, {PROBES} probes drawn and answered, {SIZE} tasks"
        found.append(median_row(what, _requests(rule, members, calls), "us"))
    return found


def _told(name: str) -> tuple[Rule[Member], list[Member]]:
    """A rule that has just heard of everybody, twice, so that WRR believes it."""
    rule: Rule[Member] = make_rule(name)
    members = fleet(SIZE)
    rule.assign(members, 0.0)
    for now_s in (1.0, _NOW_S):
        for i, member in enumerate(members):
            rule.reported(member, Report(i % 5, 0.05, 0.5, 100.0, room=10.0), now_s, probe=True)
    return rule, members


def _picks(rule: Rule[Member], calls: int) -> list[float]:
    rng = random.Random(1).random
    keys = itertools.cycle([f"user-{i}" for i in range(1000)])
    return microseconds(lambda: rule.pick(rng, _NOW_S, next(keys)), calls)


def _requests(rule: Rule[Member], members: list[Member], calls: int) -> list[float]:
    rng = random.Random(1).random
    report = Report(3, 0.05, room=10.0)

    def request() -> None:
        rule.pick(rng, _NOW_S)
        for member in rule.probes(rng, _NOW_S):
            rule.reported(member, report, _NOW_S, probe=True)

    return microseconds(request, calls)
