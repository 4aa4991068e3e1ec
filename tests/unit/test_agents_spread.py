"""Who probes whom across datacenters: every task a few witnesses, and little moves when somebody goes."""

from collections import Counter

from agents.remote.spread import Target, choose

DATACENTERS = [f"dc{index}" for index in range(6)]


def planet(agents: int = 3, tasks: int = 20, without: tuple[str, str] | None = None) -> list[Target]:
    """Each datacenter's agents with their tasks."""
    return [
        Target(f"/bns/{dc}/u/j/{agent}-{index}", "10.0.0.1", 80, f"agent{agent}")
        for dc in DATACENTERS
        for agent in range(agents)
        for index in range(tasks)
        if (dc, f"agent{agent}") != without
    ]


def witnesses(targets: list[Target], limit: int = 10_000, agents: int = 3) -> dict[str, set[tuple[str, str]]]:
    """task -> who probes it, when each agent computes by itself."""
    found: dict[str, set[tuple[str, str]]] = {target.name: set() for target in targets}
    for dc in DATACENTERS:
        for agent in range(agents):
            for target in choose(targets, (dc, f"agent{agent}"), limit):
                found[target.name].add((dc, f"agent{agent}"))
    return found


def test_every_task_has_two_witnesses_in_two_other_datacenters() -> None:
    for name, who in witnesses(planet()).items():
        assert len(who) == 2
        assert len({dc for dc, _ in who}) == 2
        assert name.split("/")[2] not in {dc for dc, _ in who}


def test_the_work_is_spread() -> None:
    per_agent = Counter(agent for who in witnesses(planet()).values() for agent in who)
    assert len(per_agent) == 18
    assert max(per_agent.values()) < 3 * min(per_agent.values())


def test_an_agent_that_goes_moves_only_its_own_share() -> None:
    before, after = witnesses(planet()), witnesses(planet(without=("dc2", "agent1")))
    gone = ("dc2", "agent1")
    for name, who in after.items():
        if gone not in before[name]:
            assert who - {gone} == before[name]


def test_order_does_not_matter() -> None:
    targets = planet()
    assert choose(targets, ("dc0", "agent0"), 10) == choose(targets[::-1], ("dc0", "agent0"), 10)


def test_the_limit_leaves_each_datacenter_its_turn() -> None:
    chosen = choose(planet(tasks=100), ("dc0", "agent0"), 10)
    assert len(chosen) == 10
    assert len({target.datacenter for target in chosen}) == 5


def test_alone_or_without_a_limit_there_is_nothing() -> None:
    own = [Target("/bns/dc0/u/j/0", "10.0.0.1", 80, "agent0")]
    assert choose(own, ("dc0", "agent0"), 10) == []
    assert choose(planet(), ("dc0", "agent0"), 0) == []


def test_two_datacenters_watch_each_other() -> None:
    targets = [Target(f"/bns/{dc}/u/j/{i}", "10.0.0.1", 80, "agent0") for dc in ("dc0", "dc1") for i in range(5)]
    assert {t.datacenter for t in choose(targets, ("dc0", "agent0"), 10)} == {"dc1"}
    assert len(choose(targets, ("dc0", "agent0"), 10)) == 5
