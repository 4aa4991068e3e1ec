"""The simulator itself: what it conserves, what its faults mean, and that the same story comes out the same."""

import math
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from gslb.cli.main import main as gslb
from gslb.sim import chart, story
from gslb.sim.canvas import SvgCanvas
from gslb.sim.commands import COMMANDS, Stage
from gslb.sim.errors import StoryError
from gslb.sim.servers import fresh_job
from gslb.sim.setup import Overload, Work

PLANET = (
    "datacenter east region=na at=40,-80",
    "datacenter west region=na at=40,-120",
    "area coast at=41,-75",
    "service web source=rpc serves=100",
    "backend web east tasks=5",
    "backend web west tasks=5",
    "demand web coast 300",
)


def stage(*more: str, planet: tuple[str, ...] = PLANET) -> Stage:
    one = Stage()
    for command in (*planet, *more):
        one.execute(command)
    return one


def last(one: Stage, service: str = "web"):
    return one.world.meters.services[service][-1]


@pytest.mark.parametrize(
    "faults",
    [
        (),
        ("kill web east 3",),
        ("lose east",),
        ("errors web east 40%",),
        ("cut coast east",),
        ("drain datacenter east",),
    ],
    ids=lambda faults: faults[0] if faults else "none",
)
def test_every_request_is_served_shed_or_failed(faults: tuple[str, ...]):
    one = stage("set noise=10%", "run 20s", *faults)
    for _ in range(30):
        one.execute("run 1s")
        tick = last(one)
        assert tick.ok + tick.shed + tick.failed == pytest.approx(tick.demand)
        assert min(tick.ok, tick.shed, tick.failed) >= 0


def test_the_same_seed_gives_the_same_series_and_another_one_does_not():
    def series(seed: int) -> list[float]:
        one = stage(f"set seed={seed} noise=10%", "run 60s")
        return [tick.demand for tick in one.world.meters.services["web"]]

    assert series(1) == series(1)
    assert series(1) != series(2)


def test_a_drain_moves_everything_and_fails_nothing():
    one = stage("run 20s", "drain datacenter east for=10m", "run 3s", "mark", "run 20s")
    assert one.execute("expect load at-most 0 dc=east") == ["ok: load east is 0, at-most 0"]
    assert one.execute("expect served at-least 100%")[0].startswith("ok")


def test_browsers_follow_an_answer_only_when_it_has_run_out():
    planet = tuple(line.replace("source=rpc", "source=edge ttl=60s") for line in PLANET)
    one = stage("set ignore_ttl=0", "run 120s", "drain datacenter east for=1h", "run 30s", planet=planet)
    half = one.world.meters.sites["web", "east"][-1].offered
    assert 75 < half < 225  # half of 300 rps after half of the TTL
    one.execute("run 45s")
    assert one.world.meters.sites["web", "east"][-1].offered == 0


def test_silent_agents_change_nothing_and_a_dead_datacenter_is_found_out():
    one = stage("run 20s", "silence all", "run 60s", "mark", "run 60s")
    assert one.execute("expect plans at-most 0")[0].startswith("ok")
    one.execute("lose east")
    one.execute("run 60s")
    assert one.execute("expect capacity at-most 0 dc=east")[0].startswith("ok")


def test_readers_keep_their_plans_while_no_control_plane_is_up():
    one = stage("run 20s", "control down", "mark", "drain datacenter east for=1h", "run 60s")
    assert one.execute("expect plans at-most 0")[0].startswith("ok")
    assert one.execute("expect load at-least 290 dc=east")[0].startswith("ok")


def test_clients_leave_a_datacenter_whose_packets_vanish_within_seconds_and_come_back_little_by_little():
    one = stage("run 20s", "cut coast east", "run 2s", "mark", "run 10s")
    assert one.execute("expect failed at-most 0%")[0].startswith("ok")
    assert one.execute("expect load at-least 299 dc=west")[0].startswith("ok")
    one.execute("heal coast east")
    loads = []
    for _ in range(20):
        one.execute("run 1s")
        loads.append(one.world.meters.sites["web", "east"][-1].offered)
    assert loads[-1] == pytest.approx(300)
    assert max(b - a for a, b in pairwise(loads)) < 100


def test_dns_frontends_without_a_control_plane_find_out_who_is_gone():
    planet = tuple(line.replace("source=rpc", "source=edge ttl=5s") for line in PLANET)
    one = stage("set ignore_ttl=0", "run 20s", "control down", "lose east", "run 10s", "mark", "run 10s", planet=planet)
    assert one.execute("expect failed at-most 0%")[0].startswith("ok")
    one.execute("return east")
    one.execute("run 20s")
    assert one.execute("expect load at-least 290 dc=east")[0].startswith("ok")


def test_a_thin_path_carries_no_more_than_it_can():
    planet = (*PLANET[:3], "link coast east mbps=100", "service web source=rpc serves=100 size_kbit=1000", *PLANET[4:])
    one = stage("run 60s", "mark", "run 20s", planet=planet)
    assert one.execute("expect path at-most 100%")[0].startswith("ok")
    assert one.execute("expect served at-least 100%")[0].startswith("ok")
    one.execute("control down")
    one.execute("demand web x2")
    one.execute("run 5s")
    assert last(one).failed > 50


def test_late_reports_are_late():
    prompt = stage("run 20s", "kill web east 5", "run 3s")
    late = stage("run 20s", "set age=10s", "kill web east 5", "run 3s")
    assert prompt.world.control.capacity_rps("web", "east") == 0
    assert late.world.control.capacity_rps("web", "east") == 500
    late.execute("run 10s")
    assert late.world.control.capacity_rps("web", "east") == 0


def test_a_missed_expectation_is_said_and_counted():
    one = stage("run 20s", "mark", "errors web east 50%", "run 20s")
    assert one.execute("expect served at-least 99%") == ["MISSED: served is 50 %, at-least 99 %"]
    assert one.missed == 1


def test_servers_shed_the_least_critical_and_pay_for_refusals():
    job = fresh_job("/bns/dc/u/j", "web", Work(100.0), 1)
    served = job.serve([10, 60, 60, 70], 1.0)
    # 100 rps of work: admitted + 0.1 * refused
    assert sum(served.ok) + 0.1 * sum(served.shed) == pytest.approx(100)
    assert served.ok[:2] == (10, 60)
    assert served.ok[3] == 0
    assert served.utilization == pytest.approx(2.0)


def test_servers_that_queue_serve_too_late_and_recover_only_far_below_their_capacity():
    job = fresh_job("/bns/dc/u/j", "web", Work(100.0, overload=Overload.QUEUE), 1)
    for _ in range(20):
        served = job.serve([0, 150, 0, 0], 1.0)
    assert served.ok_rps == 0
    served = job.serve([0, 99, 0, 0], 1.0)
    assert served.ok_rps == 0
    for _ in range(10):
        served = job.serve([0, 30, 0, 0], 1.0)
    assert served.ok_rps == pytest.approx(30)


def test_nobody_up_serves_nobody():
    job = fresh_job("/bns/dc/u/j", "web", Work(100.0), 0)
    assert job.serve([0, 10, 0, 0], 1.0).errors_rps == 10


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("fly web", "no command is called fly"),
        ("demand webb coast 3", "did you mean web?"),
        ("demand web coast many", "'many' is no number"),
        ("kill web east 9", "5 tasks of /bns/east/sim/web are up, not 9"),
        ("set colour=red", "no option is called colour="),
        ("run 0s", "0 ticks"),
        ("run 100000000s", "a story has 1.."),
        ("undrain datacenter east", "is not drained"),
        ("expect joy at-least 1", "no metric is called joy"),
        ("lose mars", "no datacenter is called mars"),
        ("show 'web", "No closing quotation"),
        ("heal coast coast coast", "one word too many"),
    ],
)
def test_what_is_wrong_with_a_command(command: str, says: str):
    one = stage("run 1s")
    with pytest.raises(StoryError) as caught:
        one.execute(command)
    assert says in str(caught.value)


def test_a_running_planet_gets_no_new_places():
    with pytest.raises(StoryError, match="the planet is running"):
        stage("run 1s", "area moon at=0,0")


def test_services_that_call_each_other_in_a_circle_are_refused():
    more = ("service api", "backend api east tasks=1", "call web api ratio=1", "call api web ratio=1")
    with pytest.raises(StoryError, match="circle"):
        stage(*more, "run 1s")


def test_a_callers_drain_moves_its_callees_demand():
    one = stage(
        "service api source=rpc serves=100",
        "backend api east tasks=9",
        "backend api west tasks=9",
        "call web api ratio=2",
        "run 30s",
    )
    assert one.world.meters.sites["api", "east"][-1].offered == pytest.approx(600)
    one.execute("drain service web@east for=1h")
    one.execute("run 30s")
    assert one.world.meters.sites["api", "west"][-1].offered == pytest.approx(600)
    assert one.world.meters.sites["api", "east"][-1].offered == pytest.approx(0)


TEXT = """# Words.

datacenter a at=0,0
# more words
----

# only words
"""


def test_a_story_is_read_and_written_as_it_is():
    assert story.render(story.parse(TEXT, "t")) == TEXT


def test_the_place_of_a_mistake_is_said():
    with pytest.raises(StoryError, match=r"^t:3: .*is no number"):
        story.play(story.parse("# x\n\ndatacenter a\n", "t"), Stage().execute)
    with pytest.raises(StoryError, match="t:1: ---- without a command"):
        story.parse("----\n", "t")


def test_the_command_shows_the_difference_rewrites_and_draws(tmp_path: Path):
    path = tmp_path / "one.txt"
    path.write_text("\n".join([*PLANET, "run 5s", "expect served at-least 100%"]) + "\n")
    run = CliRunner().invoke
    first = run(gslb, ["sim", str(path)])
    assert first.exit_code == 1
    assert "+ok: served is 100 %" in first.output
    assert run(gslb, ["sim", str(path), "--rewrite"]).exit_code == 0
    again = run(gslb, ["sim", str(path), "--plot", str(tmp_path / "one.svg")])
    assert again.exit_code == 0, again.output
    assert "as it says" in again.output
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn.startswith("<svg")
    # Demand and served, and of two datacenters load, capacity, share and utilization.
    assert drawn.count("<polyline") == 2 + 2 * 4
    assert "utilization (work asked for over CPU there is), %" in drawn
    refused = run(gslb, ["sim", str(path), "--plot", str(tmp_path / "one.gif")])
    assert refused.exit_code == 2
    assert "pictures end in .svg or .png" in refused.output


def test_a_png_shows_what_was_done(tmp_path: Path):
    path = tmp_path / "one.txt"
    path.write_text("\n".join([*PLANET, "run 20s", "lose east", "run 20s", "set noise=5%", "run 5s"]) + "\n")
    drawn = CliRunner().invoke(gslb, ["sim", str(path), "--rewrite", "--plot", str(tmp_path / "one.png")])
    assert drawn.exit_code == 0, drawn.output
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.format == "PNG"
        assert picture.size[0] == 2 * chart.WIDTH
        # The mark of the loss, and the line of the datacenter that takes over.
        colours = {colour for _, colour in picture.getcolors(1 << 24) or []}
    assert len(colours) > 100
    one = stage("run 20s", "lose east", "run 20s")
    assert one.world.meters.events == [(20.0, "lose east")]
    assert "lose east" in chart.draw(one.world, "one", SvgCanvas).decode()


def test_without_pillow_the_way_to_get_it_is_said_before_the_story_is_played(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    path = tmp_path / "one.txt"
    path.write_text("\n".join([*PLANET, "run 5s"]) + "\n")
    refused = CliRunner().invoke(gslb, ["sim", str(path), "--plot", str(tmp_path / "one.png")])
    assert refused.exit_code == 1
    assert "pip install 'gslb[plot]'" in refused.output
    assert CliRunner().invoke(gslb, ["sim", str(path), "--rewrite", "--plot", str(tmp_path / "one.svg")]).exit_code == 0


def test_an_expectation_that_is_missed_is_not_made_good_by_rewriting(tmp_path: Path):
    path = tmp_path / "one.txt"
    path.write_text("\n".join([*PLANET, "run 5s", "expect served at-most 1%"]) + "\n")
    assert CliRunner().invoke(gslb, ["sim", str(path), "--rewrite"]).exit_code == 1
    assert "MISSED" in path.read_text()


def test_every_command_is_in_the_manual():
    manual = (Path(__file__).parents[2] / "docs" / "how-to" / "simulate.md").read_text()
    assert [name for name in COMMANDS if f"`{name}" not in manual] == []


def test_day_follows_the_sun():
    one = stage("set day=24m tick=10s", "run 24m")
    demand = [tick.demand for tick in one.world.meters.services["web"]]
    assert max(demand) == pytest.approx(300, rel=0.01)
    assert min(demand) == pytest.approx(120, rel=0.01)
    assert math.isclose(sum(demand) / len(demand), 210, rel_tol=0.01)
