"""`gslb export` and `import`, and what the command does when a replica is down, on replicas of its own."""

import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bns.etcd.embedded import EmbeddedEtcd, Options
from gslb.config.load import load
from gslb.model.meta import Meta
from gslb.model.resources import Drain, Service
from tests.support.cli import BASE, Ran, in_process, stop, until
from tests.support.control import ReplicaProcess

pytestmark = pytest.mark.xdist_group("cli")


class Cells:
    """etcd and two replicas that may be killed and emptied."""

    def __init__(self, directory: Path) -> None:
        self.etcd = EmbeddedEtcd(directory / "etcd", Options(unsafe_no_fsync=True))
        self.directory = directory
        self.replicas: list[ReplicaProcess] = []

    def start(self) -> None:
        self.etcd.start()
        self.replicas = [ReplicaProcess(name, self.etcd.address, self.directory).start() for name in ("r1", "r2")]
        until(lambda: all(self.judges(one) for one in self.replicas), "both replicas are warm")

    def judges(self, replica: ReplicaProcess) -> bool:
        """Whether a replica has planned, with a leader there."""
        out = in_process("check", "--control", replica.address).out
        return bool(re.search(r"(leads|follows); [1-9]\d* rounds", out)) and "no replica leads" not in out

    def close(self) -> None:
        for replica in self.replicas:
            stop(replica)
        self.etcd.kill()
        self.etcd.remove_data()

    def gslb(self, *arguments: str, text: str | None = None) -> Ran:
        return in_process(*arguments, env={"GSLB_CONTROL": ",".join(one.address for one in self.replicas)}, text=text)


@pytest.fixture
def cells(tmp_path: Path) -> Iterator[Cells]:
    cells = Cells(tmp_path)
    try:
        cells.start()
        yield cells
    finally:
        cells.close()


def incarnation(export: str) -> int:
    found = re.match(r"# gslb export, incarnation (\d+)\n", export)
    assert found
    return int(found[1])


def by_name(export: str) -> dict[str, object]:
    return {one.meta.name: one for one in load(export, "export")}


def test_everything_comes_back_after_etcd_was_lost(cells: Cells) -> None:
    cells.gslb("apply", "-f", "-", text=BASE).ok()
    for rps in (110, 120):
        cells.gslb("apply", "-f", "-", text=BASE.replace("task_capacity_rps: 100", f"task_capacity_rps: {rps}")).ok()
    drain = ("drain", "service", "web@europe-west1", "--reason", "bad release", "--author", "bea", "--override")
    cells.gslb(*drain, "--for", "2h").ok()
    cells.gslb("drain", "service", "web@us-east1", "--reason", "soon over", "--override", "--for", "3s").ok()
    export = cells.gslb("export").ok().out
    saved = by_name(export)
    web = saved["web"]
    assert isinstance(web, Service)
    assert (web.meta.generation, web.meta.owner) == (3, "shop")

    # etcd is lost with all its data, and a new one stands in its place.
    cells.etcd.kill()
    cells.etcd.remove_data()
    for replica in cells.replicas:
        replica.kill()
    cells.start()
    assert cells.gslb("get", "services").ok().table() == []
    assert incarnation(cells.gslb("export").ok().out) == 1

    over = saved["service-web-us-east1"]
    assert isinstance(over, Drain)
    until(lambda: datetime.now(UTC) > over.expires_at, "that drain is over")
    path = cells.directory / "export.yaml"
    path.write_text(export.replace("incarnation 1\n", "incarnation 7\n", 1))
    ran = cells.gslb("import", "-f", str(path), "--new-incarnation").ok()
    # Above what the export knew, so that readers who held its plans take the new ones.
    assert ran.err == "incarnation 8\n"
    assert {row[2] for row in ran.table()} == {"created"}
    after = cells.gslb("export").ok().out
    assert incarnation(after) == 8
    restored = by_name(after)
    assert restored.keys() == saved.keys() - {"service-web-us-east1"}
    for name, resource in restored.items():
        assert resource.meta.generation == saved[name].meta.generation, name
        assert strip(resource) == strip(saved[name])
    held = restored["service-web-europe-west1"]
    assert isinstance(held, Drain)
    assert (held.author, held.reason, held.overridden) == ("bea", "bad release", True)
    # A second time nothing is to be done.
    ran = cells.gslb("import", "-f", "-", text=after).ok()
    assert {row[2] for row in ran.table()} == {"unchanged"}
    assert cells.gslb("export").ok().out == after


def strip(resource: object) -> str:
    """A resource without who wrote it when."""
    return repr(replace(resource, meta=Meta(resource.meta.name)))  # type: ignore[attr-defined, type-var]


def test_an_import_that_is_refused_changes_nothing(cells: Cells) -> None:
    cells.gslb("apply", "-f", "-", text=BASE).ok()
    before = cells.gslb("export").ok().out
    broken = before.replace("/bns/europe-west1/", "/bns/mars/").replace("uplink_mbps: 0.0", "uplink_mbps: 5.0")
    ran = cells.gslb("import", "-f", "-", "--new-incarnation", text=broken)
    assert (ran.code, ran.out) == (1, "")
    assert "'mars', which is not known" in ran.err
    assert cells.gslb("export").ok().out == before


def test_the_next_replica_is_asked_when_one_is_down(cells: Cells) -> None:
    first, second = cells.replicas
    cells.gslb("apply", "-f", "-", text=BASE).ok()
    # One that hangs: it accepts connections and answers nothing.
    first.signal(signal.SIGSTOP)
    ran = cells.gslb("get", "services").ok()
    assert [row[0] for row in ran.table()] == ["api", "web"]
    assert ran.err == f"replica {first.address} is passed over: it does not answer\n"
    first.signal(signal.SIGCONT)
    # One that is dead.
    first.kill()
    ran = cells.gslb("apply", "-f", "-", text=BASE.replace("rps: 30", "rps: 40")).ok()
    assert ["service", "api", "changed", "2"] in ran.table()
    assert f"replica {first.address} is passed over" in ran.err
    ran = cells.gslb("check")
    assert ran.code == 1
    assert ["error", "replica", first.address] in [row[:3] for row in ran.table()]
    second.kill()
    ran = cells.gslb("get", "services")
    assert (ran.code, ran.out) == (1, "")
    assert f"no control-plane replica answers at {first.address}, {second.address}: is one running?" in ran.err


def test_without_etcd_nothing_changes_and_reading_goes_on(cells: Cells) -> None:
    cells.gslb("apply", "-f", "-", text=BASE).ok()
    before = cells.gslb("export").ok().out
    cells.etcd.kill()
    one = ("--control", cells.replicas[0].address)
    ran = cells.gslb("apply", "-f", "-", *one, text=BASE.replace("rps: 30", "rps: 40"))
    assert (ran.code, ran.out) == (1, "")
    assert "etcd does not answer, so nothing was changed" in ran.err
    assert cells.gslb("export").ok().out == before
    ran = cells.gslb("check")
    assert ran.code == 1
    assert any(row[:2] == ["error", "etcd"] for row in ran.table())
    cells.etcd.start()
    until(lambda: cells.gslb("apply", "-f", "-", text=BASE).code == 0, "etcd is back")
    assert cells.gslb("export").ok().out == before
