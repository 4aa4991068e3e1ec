"""The tasks file: what is taken, and the line and words of every refusal."""

from pathlib import Path

import pytest

from agents import limits
from agents.config import load, parse
from agents.errors import ConfigError
from bns.model import ProbeKind, ProbeSpec

GOOD = """\
tasks:
  - name: /bns/us-east1/shop/web/0
    address: 10.0.0.7
    port: 8080
    named_ports: {http: 8081, admin: 9000}
    metadata: {version: "12", build: 7}
    cpu_cores: 1.5
    pid_file: /run/web.pid
    probe: {kind: http, path: /healthz, port_name: http, interval_s: 0.5, timeout_s: 2, rise: 3, fall: 4}
  - {name: /bns/us-east1/shop/web/1, address: "2001:DB8::1", port: 8080, pid: 4711}
"""


def test_every_field_is_taken() -> None:
    first, second = parse(GOOD.encode(), "tasks.yaml", "us-east1")
    assert (first.task.name, first.task.address, first.task.port) == ("/bns/us-east1/shop/web/0", "10.0.0.7", 8080)
    assert first.task.named_ports == {"http": 8081, "admin": 9000}
    assert first.task.metadata == {"version": "12", "build": "7"}
    assert (first.task.cpu_cores, first.task.pid, first.pid_file) == (1.5, 0, "/run/web.pid")
    assert first.task.probe == ProbeSpec(ProbeKind.HTTP, "/healthz", "http", 0.5, 2.0, 3, 4)
    assert (second.task.address, second.task.pid, second.task.probe) == ("2001:db8::1", 4711, ProbeSpec())


def test_no_tasks_is_a_choice() -> None:
    assert parse(b"tasks: []", "f", "us-east1") == []


def task(**changes: str) -> str:
    """A good task with lines changed (or added, or removed by None)."""
    fields = {"name": "/bns/us-east1/shop/web/0", "address": "10.0.0.7", "port": "80", **changes}
    lines = [f"{key}: {value}" for key, value in fields.items() if value is not None]
    return "tasks:\n  - " + "\n    ".join(lines) + "\n"


BAD = {
    "not YAML": ("tasks:\n  - [", "f:2", "not YAML"),
    "a tab": ("tasks:\n\t- x", "f:2", "not YAML"),
    "not UTF-8": (b"tasks: []\n# \xff\n", "f:2", "UTF-8"),
    "empty": ("", "f:1", "empty"),
    "a list": ("- a\n", "f:1", "the file is a list"),
    "no tasks": ("{}\n", "f:1", "has no 'tasks'"),
    "unknown top field": ("task: []\n", "f:1", "did you mean 'tasks'"),
    "tasks no list": ("tasks: {a: 1}\n", "f:1", "write a list"),
    "task no mapping": ("tasks:\n  - 7\n", "f:2", "the task is '7'"),
    "unknown field": (task(adress="1"), "f:5", "did you mean 'address'"),
    "field twice": ("tasks:\n  - name: /bns/us-east1/a/b/0\n    name: x\n", "f:3", "given twice"),
    "no port": (task(port=None), "f:2", "has no 'port'"),
    "no name": (task(name=None), "f:2", "has no 'name'"),
    "bad name": (task(name="/bns/us-east1/Shop/web/0"), "f:2", "'Shop'"),
    "short name": (task(name="/bns/us-east1/shop"), "f:2", "/bns/DATACENTER/USER/JOB/TASK"),
    "wrong datacenter": (task(name="/bns/europe-west1/shop/web/0"), "f:2", "'europe-west1'"),
    "host name": (task(address="localhost"), "f:3", "'localhost' is not an IPv4 or IPv6"),
    "any address": (task(address="0.0.0.0"), "f:2", "0.0.0.0"),
    "port 0": (task(port="0"), "f:4", "port 0 is not from 1 to 65535"),
    "port high": (task(port="65536"), "f:4", "65536"),
    "port text": (task(port="http"), "f:4", "'http': give a whole number"),
    "port float": (task(port="80.5"), "f:4", "'80.5': give a whole number"),
    "port bool": (task(port="yes"), "f:4", "'yes'"),
    "port minutes": (task(port="1:20"), "f:4", "'1:20': give a whole number"),
    "port null": (task(port="~"), "f:4", "whole number"),
    "cores 0": (task(cpu_cores="0"), "f:5", "cpu_cores 0 is not above 0"),
    "cores negative": (task(cpu_cores="-1"), "f:5", "cpu_cores -1"),
    "cores nan": (task(cpu_cores=".nan"), "f:5", "'.nan': give a number"),
    "cores inf": (task(cpu_cores=".inf"), "f:5", "'.inf'"),
    "cores huge": (task(cpu_cores="1e9"), "f:5", "'1e9'"),  # YAML 1.1 wants 1.0e+9, else it is text
    "named port": (task(named_ports="{http: 99999}"), "f:5", "port http 99999"),
    "port name": (task(named_ports="{HTTP: 80}"), "f:5", "'HTTP'"),
    "port name twice": (task(named_ports="{a: 80, a: 81}"), "f:5", "twice"),
    "metadata list": (task(metadata="[a]"), "f:5", "metadata is a list"),
    "metadata nested": (task(metadata="{a: {b: c}}"), "f:5", "metadata 'a' is a mapping"),
    "pid 0": (task(pid="0"), "f:5", "pid 0"),
    "pid and pid_file": (task(pid="1", pid_file="/x"), "f:2", "keep one"),
    "probe kind": (task(probe="{kind: icmp}"), "f:5", "'icmp' is none of tcp, http, grpc"),
    "probe field": (task(probe="{intervall_s: 1}"), "f:5", "did you mean 'interval_s'"),
    "probe interval": (task(probe="{interval_s: 0}"), "f:5", "interval_s 0"),
    "probe timeout": (task(probe="{timeout_s: 1000}"), "f:5", "timeout_s 1000"),
    "probe rise": (task(probe="{rise: 0}"), "f:5", "rise 0"),
    "probe port": (task(probe="{port_name: http}"), "f:2", "'http', which is not in its named_ports"),
    "probe text": (task(probe="http"), "f:5", "the probe is 'http'"),
    "alias": ("a: &x {}\ntasks: [*x]\n", "f:1", "aliases"),
    "merge": (task(**{"<<": "{}"}), "f:5", "unknown field '<<'"),
    "deep": ("[" * 20_000, "f:1", "YAML"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_with_its_line(case: str) -> None:
    text, where, words = BAD[case]
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(ConfigError) as caught:
        parse(data, "f", "us-east1")
    assert any(line.startswith(where + ": ") and words in line for line in caught.value.problems), caught.value.problems
    assert all("\n" not in line for line in caught.value.problems)


def test_a_duplicate_names_both_lines() -> None:
    item = "  - {name: /bns/us-east1/a/b/0, address: 10.0.0.1, port: 80}\n"
    with pytest.raises(ConfigError) as caught:
        parse(("tasks:\n" + item + item).encode(), "f", "us-east1")
    assert caught.value.problems == (
        "f:3: task /bns/us-east1/a/b/0 is already at line 2: remove one, or give it another name",
    )


def test_all_problems_are_shown_up_to_a_limit() -> None:
    item = "  - {name: bad, address: 10.0.0.1, port: 80}\n"
    with pytest.raises(ConfigError) as caught:
        parse(("tasks:\n" + 50 * item).encode(), "f", "us-east1")
    assert len(caught.value.problems) == limits.CONFIG_PROBLEMS_SHOWN + 1
    assert caught.value.problems[-1] == "f: and 30 more"


def test_a_file_that_is_missing_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml", "us-east1")
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * (limits.CONFIG_MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="is larger than"):
        load(big, "us-east1")
