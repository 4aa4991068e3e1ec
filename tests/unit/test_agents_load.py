"""Rates from counters, reports from rows, cgroups from files."""

import math
from pathlib import Path

import pytest

from agents.load import rates
from agents.load.cgroups import Cgroups, find_mounts
from agents.load.cpu import MachineLoad
from agents.load.listeners import listeners
from agents.load.processes import children_of, read_all, read_process, tree
from agents.load.rates import Counters, RateMeter, Rates
from agents.load.report import RemoteRow, Sender, TaskRow, pack
from bns.model import HealthStatus
from gslb.model.limits import RATE_MAX_RPS


def counters(ok: int, error: int = 0, in_flight: int = 0) -> Counters:
    return Counters((0, ok, 0, 0), (0, error, 0, 0), in_flight)


def test_a_rate_is_over_the_time_between_the_counters_not_between_the_reports() -> None:
    meter = rates.count(RateMeter(), counters(1000), 10.0)
    meter = rates.count(meter, counters(1100, 10, 3), 12.0)
    seen = rates.sample(meter, 15.0)[1]
    assert seen == Rates((0.0, 50.0, 0.0, 0.0), (0.0, 5.0, 0.0, 0.0), 3)


def test_the_first_counters_are_only_a_beginning() -> None:
    """A task that attaches again after an hour does not report its whole hour as one period's load."""
    _, seen = rates.sample(rates.count(RateMeter(), counters(10**9), 10.0), 11.0)
    assert seen == Rates()


def test_without_new_counters_the_rate_holds_and_then_ends() -> None:
    meter = rates.count(rates.count(RateMeter(), counters(0), 0.0), counters(10, 0, 2), 1.0)
    meter, first = rates.sample(meter, 1.5)
    meter, held = rates.sample(meter, 2.5)
    meter, over = rates.sample(meter, 10.0)
    meter, still = rates.sample(meter, 11.0)
    assert (first.ok[1], held.ok[1], held.in_flight) == (10.0, 10.0, 2)
    assert over == still == Rates()


def test_a_counter_that_falls_counts_from_zero() -> None:
    meter = rates.count(rates.count(RateMeter(), counters(1000), 0.0), counters(30), 1.0)
    assert rates.sample(meter, 1.0)[1].ok[1] == 30.0


def test_no_sum_is_lost_over_many_reports() -> None:
    meter, total, now = RateMeter(), 0.0, 0.0
    meter = rates.count(meter, counters(0), now)
    last = now
    for step in range(1, 101):
        now = step * 0.7
        meter = rates.count(meter, counters(step * 7), now)
        if step % 3 == 0:
            meter, seen = rates.sample(meter, now + 0.1)
            total += seen.ok[1] * (now - last)
            last = now
    assert total == pytest.approx(99 * 7)


def test_hostile_counters_are_bounded() -> None:
    meter = rates.count(RateMeter(), rates.to_counters([], [], 0), 0.0)
    meter = rates.count(meter, rates.to_counters([2**64 - 1] * 9, [9], 2**32 - 1), 1e-9)
    seen = rates.sample(meter, 1.0)[1]
    assert seen.ok == (RATE_MAX_RPS,) * 4
    assert seen.error == (RATE_MAX_RPS, 0.0, 0.0, 0.0)
    assert seen.in_flight == rates.IN_FLIGHT_MAX


def test_a_report_is_columns_of_equal_length() -> None:
    rows = [
        TaskRow("/bns/a/b/c/0", HealthStatus.HEALTHY, 0.5, Rates((1, 2, 3, 4), (5, 6, 7, 8), 9)),
        TaskRow("/bns/a/b/c/1", HealthStatus.DRAINING),
    ]
    sender = Sender("agent-1", "a", "boot", 5.0)
    report = pack(sender, 7, rows, [RemoteRow("/bns/z/b/c/0", False, 2.5)], MachineLoad(0.25, 4.0), partial=True)
    assert (report.agent, report.datacenter, report.boot_id, report.seq, report.partial) == (
        "agent-1", "a", "boot", 7, True,
    )  # fmt: skip
    assert list(report.health) == [1, 3]
    assert report.cpu_utilization[0] == 0.5
    assert math.isnan(report.cpu_utilization[1])
    columns = [field.name for field, _ in report.ListFields() if field.name.endswith("_rps")]
    assert len(columns) == 8
    assert {len(getattr(report, column)) for column in columns} == {2}
    assert [getattr(report, column)[0] for column in columns] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert list(report.in_flight) == [9, 0]
    assert (report.remote[0].task, report.remote[0].ok, report.remote[0].rtt_ms) == ("/bns/z/b/c/0", False, 2.5)


def test_ten_thousand_tasks_are_one_message_of_moderate_size() -> None:
    rows = [TaskRow(f"/bns/us-east1/shop/web/{i}", HealthStatus.HEALTHY, 0.5) for i in range(10_000)]
    report = pack(Sender("a", "us-east1", "b", 5.0), 1, rows, [], MachineLoad(0.0, 1.0), partial=False)
    assert report.ByteSize() < 10_000 * 80


def test_this_process_is_in_its_parents_tree() -> None:
    import os

    processes = read_all()
    me, parent = read_process(os.getpid()), processes[os.getppid()]
    assert me is not None
    assert me.parent == parent.pid
    assert me.alive
    assert me.cpu_s > 0.0
    assert me.pid in set(tree(parent.pid, children_of(processes)))
    assert read_process(0) is None
    assert read_process(2**22 + 1) is None


def test_a_tree_with_a_loop_ends() -> None:
    assert sorted(tree(1, {1: [2], 2: [1, 3]})) == [1, 2, 3]


def test_listeners_have_their_process() -> None:
    import os
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listeners()[("127.0.0.1", server.getsockname()[1])] == os.getpid()


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "v2/task").mkdir(parents=True)
    (tmp_path / "v1/task").mkdir(parents=True)
    (tmp_path / "proc/7/cgroup").write_text("3:cpu,cpuacct:/task\n1:name=systemd:/x\n0::/task\n")
    (tmp_path / "mountinfo").write_text(
        f"30 20 0:1 / {tmp_path}/v1 rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
        f"31 20 0:2 / {tmp_path}/v2 rw,relatime - cgroup2 cgroup2 rw\n"
        "32 20 0:3 / /elsewhere rw - cgroup cgroup rw,memory\n"
        "garbage\n"
    )
    (tmp_path / "v2/task/cgroup.procs").write_text("7\n8\n")
    (tmp_path / "v1/task/cgroup.procs").write_text("7\n8\n")
    (tmp_path / "v2/task/cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (tmp_path / "v1/task/cpuacct.usage").write_text("3500000000\n")
    return tmp_path


def cgroups(machine: Path) -> Cgroups:
    return Cgroups(find_mounts(machine / "mountinfo"), machine / "proc")


def test_a_cgroup_of_ones_own_counts_v2_before_v1(machine: Path) -> None:
    assert cgroups(machine).own_cpu_s(7, {7, 8}) == ("cgroup v2 /task", 2.5)
    (machine / "v2/task/cpu.stat").unlink()
    assert cgroups(machine).own_cpu_s(7, {7, 8}) == ("cgroup v1 /task", 3.5)


def test_a_cgroup_with_neighbours_does_not_count(machine: Path) -> None:
    assert cgroups(machine).own_cpu_s(7, {7}) is None


def test_the_root_cgroup_does_not_count(machine: Path) -> None:
    (machine / "proc/7/cgroup").write_text("0::/\n")
    (machine / "v2/cgroup.procs").write_text("7\n")
    (machine / "v2/cpu.stat").write_text("usage_usec 1\n")
    assert cgroups(machine).own_cpu_s(7, {7}) is None


def test_nothing_there(machine: Path) -> None:
    assert cgroups(machine).own_cpu_s(99, {99}) is None
    assert find_mounts(machine / "none").v2 is None
    (machine / "v2/task/cpu.stat").write_text("usage_usec many\n")
    (machine / "v1/task/cpuacct.usage").write_text("")
    assert cgroups(machine).own_cpu_s(7, {7, 8}) is None
