"""Who serves, and where a locality's demand goes: cases."""

import pytest

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Catalog, ClientArea, Datacenter
from gslb.steer.choice import choose, datacenter_order, live_shares, shares_for, stable_choice
from gslb.steer.view import ServiceView, serving

H, U, D, T, N = (
    HealthStatus.HEALTHY,
    HealthStatus.UNHEALTHY,
    HealthStatus.DRAINING,
    HealthStatus.TIMEOUT,
    HealthStatus.UNKNOWN,
)
PLACES = {"us": Coordinates(33, -80), "eu": Coordinates(50, 4), "asia": Coordinates(24, 120)}
CATALOG = Catalog(
    datacenters={name: Datacenter(Meta(name), name, at) for name, at in PLACES.items()},
    areas={
        "canada": ClientArea(Meta("canada"), Coordinates(45, -75)),
        "japan": ClientArea(Meta("japan"), Coordinates(36, 138)),
    },
)
PLAN = Plan(
    "backend",
    Stamp(1, 1, 1),
    shares={"us": {"us": 0.75, "eu": 0.25}, "eu": {"eu": 1.0}, "asia": {"asia": 1.0}},
    demand_rps={"us": 30.0, "eu": 10.0, "asia": 0.0},
)


def endpoints(**healths: str) -> dict[str, ServiceEndpoint]:
    """`us="HU"`: two tasks in us, the first HEALTHY, the second UNHEALTHY."""
    letters = {"H": H, "U": U, "D": D, "T": T, "N": N}
    return {
        task: ServiceEndpoint(task, "127.0.0.1", 80, letters[letter])
        for datacenter, tasks in healths.items()
        for index, letter in enumerate(tasks)
        for task in (f"/bns/{datacenter}/u/backend/{index}",)
    }


def view(plan: Plan | None = PLAN, **healths: str) -> ServiceView:
    return ServiceView.build("backend", None, plan, endpoints(**healths))


@pytest.mark.parametrize(
    ("healths", "serve", "panic"),
    [
        ("HUDTN", "0", False),
        ("UDTN", "023", True),
        ("DD", "01", True),
        ("UU", "01", True),
        ("D", "0", True),
        ("HH", "01", False),
        ("", "", False),
    ],
)
def test_who_serves(healths: str, serve: str, panic: bool) -> None:
    known = endpoints(us=healths)
    assert "".join(endpoint.task[-1] for endpoint in serving(list(known.values()))) == serve
    built = view(us=healths)
    assert "".join(endpoint.task[-1] for endpoint in built.serving.get("us", ())) == serve
    assert built.panic is panic


def test_an_ill_datacenter_gets_nothing_while_another_is_healthy() -> None:
    assert set(view(us="UU", eu="H").serving) == {"eu"}
    assert set(view(us="UU", eu="U").serving) == {"us", "eu"}


@pytest.mark.parametrize(
    ("locality", "shares"),
    [
        ("us", {"us": 0.75, "eu": 0.25}),
        # Known to the catalog, not to the plan: the nearest datacenter's.
        ("canada", {"us": 0.75, "eu": 0.25}),
        ("japan", {"asia": 1.0}),
        # Known to nobody: all demand together, 30 rps of us and 10 of eu.
        ("mars", {"us": 0.5625, "eu": 0.4375}),
    ],
)
def test_shares_of_a_locality(locality: str, shares: dict[str, float]) -> None:
    assert shares_for(view(us="H", eu="H", asia="H"), locality, CATALOG) == pytest.approx(shares)


def test_without_demand_localities_count_alike() -> None:
    plan = Plan("backend", shares={"a": {"us": 1.0}, "b": {"eu": 1.0}})
    assert view(plan).overall == {"eu": 0.5, "us": 0.5}


def test_without_a_plan_the_nearest_datacenter_that_serves() -> None:
    unplanned = view(None, eu="H", asia="HHH")
    assert shares_for(unplanned, "canada", CATALOG) == {"eu": 1.0}
    assert shares_for(unplanned, "us", CATALOG) == {"eu": 1.0}
    assert shares_for(unplanned, "mars", CATALOG) == {"asia": 0.75, "eu": 0.25}
    assert shares_for(view(None), "us", CATALOG) == {}
    assert choose(view(None), "us", 0.5, CATALOG) is None


@pytest.mark.parametrize(
    ("healths", "shares"),
    [
        ({"us": "H", "eu": "H"}, {"us": 0.75, "eu": 0.25}),
        ({"us": "U", "eu": "H", "asia": "H"}, {"eu": 1.0}),
        ({"eu": "H", "asia": "H"}, {"eu": 1.0}),
        # Neither of the plan's datacenters: the nearest that serves.
        ({"asia": "H"}, {"asia": 1.0}),
        # Panic: all are ill alike.
        ({"us": "U", "eu": "U"}, {"us": 0.75, "eu": 0.25}),
    ],
)
def test_lost_datacenters_give_their_share_away(healths: dict[str, str], shares: dict[str, float]) -> None:
    assert live_shares(view(**healths), "us", CATALOG) == pytest.approx(shares)


def test_a_contingency_says_where_the_load_of_a_lost_datacenter_goes() -> None:
    plan = Plan(
        "backend",
        Stamp(1, 1, 1),
        shares={"us": {"us": 0.5, "eu": 0.5}},
        contingencies={"us": {"us": {"eu": 0.2, "asia": 0.8}}},
    )
    lost = view(plan, us="U", eu="H", asia="H")
    assert live_shares(lost, "us") == pytest.approx({"eu": 0.6, "asia": 0.4})
    drawn = [choose(lost, "us", (i + 0.5) / 2000) for i in range(2000)]
    assert sum(choice is not None and choice[0] == "asia" for choice in drawn) == pytest.approx(800, abs=120)
    # The heir is lost too: what is left takes all.
    assert live_shares(view(plan, us="U", eu="H", asia="U"), "us") == {"eu": 1.0}


def test_heirs_of_a_contingency_that_are_lost_too_leave_their_part_to_the_other_heirs() -> None:
    plan = Plan(
        "backend",
        Stamp(1, 1, 1),
        shares={"us": {"us": 0.4, "eu": 0.4, "sa": 0.2}},
        contingencies={"us": {"us": {"eu": 0.25, "sa": 0.25, "asia": 0.5}}},
    )
    assert live_shares(view(plan, us="U", eu="H", sa="H", asia="U"), "us") == pytest.approx({"eu": 0.6, "sa": 0.4})


def test_order_of_datacenters_is_by_share_then_distance_then_name() -> None:
    assert datacenter_order(view(us="H", eu="H", asia="H"), "us", CATALOG) == ("us", "eu", "asia")
    assert datacenter_order(view(None, us="H", eu="H", asia="H"), "japan", CATALOG) == ("asia", "eu", "us")
    assert datacenter_order(view(None, us="H", eu="HH"), "mars") == ("eu", "us")


def test_a_change_of_one_part_keeps_the_others() -> None:
    built = view(us="H", eu="H")
    ill = built.with_endpoints(endpoints(us="U", eu="H"))
    assert ill.plan is built.plan
    assert ill.tables is built.tables
    assert set(ill.serving) == {"eu"}
    assert set(built.serving) == {"us", "eu"}


def test_stable_choice_is_the_same_in_every_process_and_version() -> None:
    """Other implementations (the Rust data plane) must give these: they are part of the interface."""
    shares = {"us-east1": 0.5, "europe-west1": 0.3, "asia-east1": 0.2}
    chosen = [stable_choice(shares, f"198.51.100.{i}".encode()) for i in range(12)]
    asia, eu, us = "asia-east1", "europe-west1", "us-east1"
    assert chosen == [asia, eu, us, asia, us, us, eu, eu, us, us, us, us]
