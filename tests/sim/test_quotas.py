"""The goal of quotas: a client that spreads over three datacenters stays at most 5 % over its quota from the second
period on, however it spreads, and others lose nothing. Nine servers, three to a datacenter, under a virtual clock."""

import pytest

from gslb.model import limits
from gslb.model.quota import Quota, Unit, Usage
from tests.support.quota_sim import Client, Fleet

SERVERS = 9
BEGIN = 2  # the period in which a client begins to ask too much
BEGIN_S = BEGIN * limits.QUOTA_PERIOD_S
LASTS_S = 20.0


def even(_: float) -> list[float]:
    return [1.0] * SERVERS


def uneven(_: float) -> list[float]:
    return [10, 5, 1, 1, 1, 1, 0.2, 0.2, 0.2]


def shifting(t: float) -> list[float]:
    """Nearly all of it goes to one datacenter, each three seconds to the next one."""
    return [1.0 if i // 3 == int(t / 3) % 3 else 0.05 for i in range(SERVERS)]


def drifting(t: float) -> list[float]:
    """Within ten seconds from one datacenter to the others."""
    part = min(1.0, t / 10)
    return [1.0 - part] * 3 + [part] * 6


SPREADS = {spread.__name__: spread for spread in (even, uneven, shifting, drifting)}


def others() -> list[Client]:
    """Clients that keep within their quotas; with the greedy one's they add up to more than the service may have."""
    return [
        Client(Quota("web", rps=2000.0), lambda _: 300.0, uneven),
        Client(Quota("mail", rps=400.0), lambda _: 280.0, even),
    ]


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("excess", [1.2, 1.5, 2.0, 3.0, 10.0])
def test_from_the_second_period_on_it_is_held_to_its_quota(spread: str, excess: float) -> None:
    for seed in range(3):
        greedy = Client(Quota("batch", rps=400.0), lambda t: 400.0 * excess if t >= BEGIN_S else 0.0, SPREADS[spread])
        calm = others()
        Fleet(SERVERS, [greedy, *calm], seed).run(LASTS_S)
        assert greedy.over(BEGIN + 1) <= 1.05, (seed, greedy.used)
        # It gets what it may have: all of it where it asks alike, less while it moves from place to place.
        assert greedy.mean(BEGIN + 1) >= (0.6 if spread == "shifting" else 0.93), (seed, greedy.used)
        assert [sum(client.refused) for client in calm] == [0, 0]


@pytest.mark.parametrize("before", [0.3, 0.9])
def test_who_was_within_his_quota_before_saved_nothing_up(before: float) -> None:
    for seed in range(3):
        client = Client(Quota("batch", rps=400.0), lambda t: 400.0 * (before if t < BEGIN_S else 3.0), uneven)
        Fleet(SERVERS, [client], seed).run(LASTS_S)
        assert sum(client.refused[:BEGIN]) <= 0.01 * sum(client.asked[:BEGIN])
        assert client.over(BEGIN + 1) <= 1.05, (seed, client.used)


def test_cpu_seconds_are_shared_like_requests() -> None:
    for seed in range(3):
        client = Client(Quota("batch", cpu_cores=4.0), lambda t: 1200.0 if t >= BEGIN_S else 0.0, uneven, cpu_s=0.01)
        calm = Client(Quota("web", cpu_cores=4.0), lambda _: 200.0, even, cpu_s=0.01)
        Fleet(SERVERS, [client, calm], seed).run(LASTS_S)
        assert client.quota.unit is Unit.CPU
        assert client.over(BEGIN + 1) <= 1.05, (seed, client.used)
        assert client.mean(BEGIN + 1) >= 0.9, (seed, client.used)
        assert sum(calm.refused) == 0


def test_who_asks_less_again_is_not_held_back_any_more() -> None:
    client = Client(Quota("batch", rps=400.0), lambda t: 1200.0 if 4.0 <= t < 10.0 else 200.0, shifting)
    Fleet(SERVERS, [client]).run(30.0)
    assert sum(client.refused[2:5]) > 0
    assert sum(client.refused[11:]) == 0


def test_with_the_control_plane_gone_the_last_shares_hold() -> None:
    greedy = Client(Quota("batch", rps=400.0), lambda _: 1200.0, uneven)
    calm = others()
    Fleet(SERVERS, [greedy, *calm], silent=lambda t: t > 8.0).run(40.0)
    assert greedy.over(4) <= 1.05
    assert greedy.mean(4) >= 0.93
    assert [sum(client.refused) for client in calm] == [0, 0]


def test_a_server_that_falls_silent_leaves_its_part_to_the_others() -> None:
    client = Client(Quota("batch", rps=400.0), lambda _: 1200.0, even)
    fleet = Fleet(SERVERS, [client])
    for ghost in range(SERVERS):
        usage = Usage("batch", Unit.RPS, 1000.0, 10.0, 1000)
        assert not fleet.fold.report("search", f"ghost-{ghost}", [usage], 0.5, fleet.quotas, now_s=0.0)
    fleet.run(20.0)
    assert client.over(1) <= 1.05
    assert client.mean(0) < client.mean(4)
    assert client.mean(4) >= 0.97
    assert fleet.fold.servers == SERVERS
