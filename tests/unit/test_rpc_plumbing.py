"""Timers, outboxes, errors, lazy names: the small parts under the client."""

import importlib.util
import os
import subprocess
import sys
import threading
import time

import grpc
import pytest

import gslb.rpc
import gslb.rpc.server
from gslb.model import limits
from gslb.model.criticality import Criticality
from gslb.rpc.client import shared
from gslb.rpc.client.errors import LocalRpcError
from gslb.rpc.client.outbox import Outbox
from gslb.rpc.client.reports import Tally, demand_rows, observation_rows
from gslb.rpc.client.timers import Timers
from gslb.rpc.server import Load


class TestTimers:
    def test_in_order_of_time(self) -> None:
        timers, seen, done = Timers("test"), [], threading.Event()
        timers.after(0.10, lambda: (seen.append(3), done.set()))
        timers.after(0.02, lambda: seen.append(1))
        timers.after(0.05, lambda: seen.append(2))
        assert done.wait(5)
        assert seen == [1, 2, 3]
        timers.close()

    @pytest.mark.filterwarnings("ignore")
    def test_a_bad_callback_does_not_stop_the_rest(self, caplog: pytest.LogCaptureFixture) -> None:
        timers, done = Timers("test"), threading.Event()
        timers.after(0.0, lambda: 1 / 0)
        timers.after(0.01, done.set)
        assert done.wait(5)
        assert "callback failed" in caplog.text
        timers.close()

    def test_closed_nothing_runs(self) -> None:
        timers, seen = Timers("test"), []
        assert timers.after(0.05, lambda: seen.append(1))
        timers.close()
        assert not timers.after(0.0, lambda: seen.append(2))
        time.sleep(0.1)
        assert seen == []


class TestOutbox:
    def test_the_oldest_goes_when_it_is_full(self) -> None:
        outbox: Outbox[int] = Outbox(3)
        for i in range(5):
            outbox.put(i)
        outbox.close()
        assert list(outbox) == [2, 3, 4]

    def test_waits_for_what_comes(self) -> None:
        outbox: Outbox[int] = Outbox(3)
        seen: list[int] = []
        reader = threading.Thread(target=lambda: seen.extend(outbox))
        reader.start()
        outbox.put(1)
        time.sleep(0.05)
        outbox.put(2)
        outbox.close()
        reader.join(5)
        assert seen == [1, 2]


class TestReports:
    def test_only_what_was_asked_is_a_row(self) -> None:
        rows = demand_rows({("s", "l", "c", Criticality.SHEDDABLE): 3, ("s", "l", "c", Criticality.CRITICAL): 0})
        assert len(rows) == 1
        assert (rows[0].service, rows[0].attempts, rows[0].criticality) == ("s", 3, 4)

    def test_channels_to_one_task_are_summed(self) -> None:
        rows = observation_rows([("t", 1, 2), ("t", 10, 0), ("t", 0, 1), ("u", 1, 0)])
        assert [(row.task, row.ok, row.failed) for row in rows] == [("t", 11, 3), ("u", 1, 0)]

    def test_a_tally_does_not_grow_for_ever(self) -> None:
        tally = Tally()
        for i in range(limits.DEMAND_ROWS_MAX + 10):
            tally.add((f"s{i}", "", "", Criticality.CRITICAL), 1)
        tally.add(("s0", "", "", Criticality.CRITICAL), 1)
        taken = tally.take()
        assert len(taken) == limits.DEMAND_ROWS_MAX
        assert taken["s0", "", "", Criticality.CRITICAL] == 2
        assert tally.take() == {}


def test_our_own_errors_answer_what_grpcs_do() -> None:
    error = LocalRpcError(grpc.StatusCode.UNAVAILABLE, "why")
    assert isinstance(error, grpc.RpcError)
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "why")
    assert "UNAVAILABLE" in str(error)
    assert "why" in str(error)
    assert error.done()
    assert not error.is_active()
    assert not error.running()
    assert not error.cancelled()
    assert error.exception() is error
    assert error.traceback() is not None
    assert (error.initial_metadata(), error.trailing_metadata()) == ((), ())
    with pytest.raises(LocalRpcError):
        error.result()
    with pytest.raises(LocalRpcError):
        next(error)


def test_load_counts_requests_of_any_protocol() -> None:
    load = Load()
    with load.request(Criticality.CRITICAL_PLUS):
        assert load.counters().in_flight == 1
    with pytest.raises(KeyError), load.request():
        raise KeyError
    assert load.counters().ok == (1, 0, 0, 0)
    assert load.counters().error == (0, 1, 0, 0)


@pytest.mark.parametrize("package", [gslb.rpc, gslb.rpc.server])
def test_every_name_that_is_promised_is_there(package) -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
        # Whoever imported a module of that name would put it in the place of what is promised.
        assert importlib.util.find_spec(f"{package.__name__}.{name}") is None
    with pytest.raises(AttributeError):
        _ = package.nothing


def test_the_pure_part_does_not_import_grpc() -> None:
    code = "import sys, gslb.rpc.policy.table; sys.exit('grpc' in sys.modules or 'google' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_program_that_ends_without_closing_ends_quietly() -> None:
    code = """
import gslb.rpc, grpc
channel = gslb.rpc.channel("echo", control="127.0.0.1:9,127.0.0.1:10", locality="us-east1")
try:
    channel.unary_unary("/test.Echo/Unary")(b"x", timeout=0.2)
except grpc.RpcError as error:
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    print("no plan yet" in error.details())
future = channel.unary_unary("/test.Echo/Unary").future(b"x")
"""
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 0
    assert ended.stdout.strip() == "True"
    assert "Traceback" not in ended.stderr
    assert "Warning" not in ended.stderr


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_forked_child_gets_a_connection_of_its_own() -> None:
    gslb.rpc.control("127.0.0.1:9")
    try:
        child = os.fork()
        if child == 0:
            os._exit(len(shared._connections))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(shared.connections()) == 1
    finally:
        gslb.rpc.close_all()
