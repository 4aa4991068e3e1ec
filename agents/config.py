"""The tasks file: YAML -> tasks, each error with its line.

    tasks:
      - name: /bns/us-east1/shop/web/0
        address: 10.0.0.7
        port: 8080
        named_ports: {http: 8081}
        metadata: {version: "12"}
        cpu_cores: 1.5
        pid_file: /run/web.pid        # or pid; without either, the process that listens on address:port
        probe: {kind: http, path: /healthz, port_name: http, interval_s: 1, timeout_s: 1, rise: 2, fall: 2}

Nothing is taken from a file with an error in it; all of its errors are shown.
"""

import difflib
import ipaddress
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from agents import limits
from agents.errors import ConfigError
from agents.keeper import ConfiguredTask
from bns import limits as bns_limits
from bns.codec import decode_task, encode_task
from bns.errors import BadRecordError
from bns.model import ProbeKind, ProbeSpec, Task
from bns.names import InvalidNameError, check_label, parse_task

Parsed = dict[str, object]
Parse = Callable[["_File", yaml.Node, str], object]

# Most C-level YAML readers are faster, and not everywhere; a tasks file is small.
_Loader = yaml.SafeLoader


class _BadValue(Exception):  # noqa: N818  becomes a line of a ConfigError
    """A value is not acceptable."""


class _File:
    """One file being read: collects what is wrong with it."""

    def __init__(self, filename: str, datacenter: str) -> None:
        self.filename = filename
        self.datacenter = datacenter
        self.problems: list[str] = []

    def problem(self, node: yaml.Node | None, message: str) -> None:
        line = node.start_mark.line + 1 if node is not None else 1
        self.problems.append(f"{self.filename}:{line}: {message}")

    def mapping(self, node: yaml.Node, what: str, fields: Mapping[str, Parse], required: tuple[str, ...]) -> Parsed:
        """The values of the known fields of `node`; what is wrong is noted."""
        found: Parsed = {}
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, f"{what} is {_kind(node)}: write fields, one `name: value` a line")
            return found
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = str(key_node.value)[:80] if isinstance(key_node, yaml.ScalarNode) else "?"
            parse = fields.get(key)
            if parse is None:
                self.problem(key_node, f"unknown field {key!r} in {what}: {_nearest(key, tuple(fields))}")
            elif key in seen:
                self.problem(key_node, f"field {key!r} is given twice in {what}: remove one")
            else:
                self._take(found, key, parse, value_node)
            seen.add(key)
        for key in required:
            if key not in seen:
                self.problem(node, f"{what} has no {key!r}: add it")
        return found

    def _take(self, found: Parsed, key: str, parse: Parse, node: yaml.Node) -> None:
        try:
            found[key] = parse(self, node, key)
        except (_BadValue, InvalidNameError) as error:
            self.problem(node, str(error))


def load(path: Path, datacenter: str) -> list[ConfiguredTask]:
    """The tasks that the file at `path` names for an agent of `datacenter`. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(limits.CONFIG_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror}",)) from error
    if len(data) > limits.CONFIG_MAX_BYTES:
        raise ConfigError((f"{path}: is larger than {limits.CONFIG_MAX_BYTES} bytes",))
    return parse(data, str(path), datacenter)


def parse(data: bytes, filename: str, datacenter: str) -> list[ConfiguredTask]:
    """The tasks that `data` names for an agent of `datacenter`. Raises ConfigError."""
    file = _File(filename, datacenter)
    root = _compose(file, data)
    tasks: object = None
    if root is not None:
        tasks = file.mapping(root, "the file", {"tasks": _tasks}, ("tasks",)).get("tasks")
    if file.problems:
        shown = file.problems[: limits.CONFIG_PROBLEMS_SHOWN]
        more = len(file.problems) - len(shown)
        raise ConfigError((*shown, f"{filename}: and {more} more") if more else tuple(shown))
    return list(tasks) if isinstance(tasks, list) else []


def _compose(file: _File, data: bytes) -> yaml.Node | None:
    try:
        text = data.decode("utf-8")
        _check_shape(text)
        root = yaml.compose(text, Loader=_Loader)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        file.problems.append(f"{file.filename}:{line}: is not UTF-8")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        file.problems.append(f"{file.filename}:{line}: not YAML: {error.problem or error.context}")
    except (yaml.YAMLError, _BadValue, RecursionError) as error:
        file.problem(None, f"not YAML that is taken here: {str(error).splitlines()[0]}")
    else:
        if root is None:
            file.problem(None, "the file is empty: write `tasks: []` if this machine has none")
        return root
    return None


def _check_shape(text: str) -> None:
    """Small things that grow: aliases of aliases, and nesting, which takes the reader quadratic time. Raises _BadValue."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise _BadValue("aliases (*name) are not taken: write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > limits.CONFIG_DEPTH_MAX:
            raise _BadValue(f"more than {limits.CONFIG_DEPTH_MAX} levels of nesting")


def _tasks(file: _File, node: yaml.Node, _key: str) -> list[ConfiguredTask]:
    if not isinstance(node, yaml.SequenceNode):
        raise _BadValue(f"tasks is {_kind(node)}: write a list, each task after `- `")
    if len(node.value) > limits.TASKS_MAX:
        raise _BadValue(f"{len(node.value)} tasks: an agent looks after {limits.TASKS_MAX} at most")
    found: dict[str, tuple[ConfiguredTask, int]] = {}
    for item in node.value:
        task = _task(file, item)
        if task is None:
            continue
        line = item.start_mark.line + 1
        if task.task.name in found:
            first = found[task.task.name][1]
            file.problem(item, f"task {task.task.name} is already at line {first}: remove one, or give it another name")
        else:
            found[task.task.name] = (task, line)
    return [task for task, _ in found.values()]


def _task(file: _File, node: yaml.Node) -> ConfiguredTask | None:
    before = len(file.problems)
    values = file.mapping(node, "the task", _TASK_FIELDS, ("name", "address", "port"))
    if len(file.problems) > before:
        return None
    pid_file = str(values.pop("pid_file", ""))
    if pid_file and values.get("pid"):
        file.problem(node, f"task {values['name']} has both pid and pid_file: keep one")
        return None
    task = replace(Task("", "", 0), **values)  # type: ignore[arg-type]  # each field's parser makes its type
    if task.probe.port_name and task.probe.port_name not in task.named_ports:
        file.problem(node, f"task {task.name} probes port {task.probe.port_name!r}, which is not in its named_ports")
        return None
    try:
        return ConfiguredTask(decode_task(encode_task(task)), pid_file)
    except BadRecordError as error:
        file.problem(node, str(error))
        return None


# One parser a field.


def _name(file: _File, node: yaml.Node, key: str) -> str:
    name = parse_task(_text(file, node, key))
    if name.datacenter != file.datacenter:
        raise _BadValue(
            f"task {name} is of datacenter {name.datacenter!r}; this agent serves {file.datacenter!r}:"
            " move the task to that datacenter's agent, or correct --datacenter"
        )
    return str(name)


def _address(file: _File, node: yaml.Node, key: str) -> str:
    text = _text(file, node, key)
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise _BadValue(f"address {text!r} is not an IPv4 or IPv6 address: give a literal, no host name") from None


def _port(_file: _File, node: yaml.Node, key: str) -> int:
    port = _integer(node, key)
    if not 1 <= port <= 65535:
        raise _BadValue(f"{key} {port} is not from 1 to 65535")
    return port


def _named_ports(file: _File, node: yaml.Node, key: str) -> Mapping[str, int]:
    pairs = _pairs(file, node, key)
    if len(pairs) > bns_limits.NAMED_PORTS_MAX:
        raise _BadValue(f"{len(pairs)} named ports: at most {bns_limits.NAMED_PORTS_MAX}")
    return {check_label(name, "port name"): _port(file, value, f"port {name}") for name, value in pairs}


def _metadata(file: _File, node: yaml.Node, key: str) -> Mapping[str, str]:
    return {name: _text(file, value, f"metadata {name!r}") for name, value in _pairs(file, node, key)}


def _cpu_cores(_file: _File, node: yaml.Node, key: str) -> float:
    cores = _number(node, key)
    if not 0.0 < cores <= bns_limits.CPU_CORES_MAX:
        raise _BadValue(f"{key} {cores:g} is not above 0 and at most {bns_limits.CPU_CORES_MAX:g}")
    return cores


def _pid(_file: _File, node: yaml.Node, key: str) -> int:
    pid = _integer(node, key)
    if not 1 <= pid < 2**31:
        raise _BadValue(f"{key} {pid} is not a process number: leave it out if it is not known")
    return pid


def _probe(file: _File, node: yaml.Node, _key: str) -> ProbeSpec:
    values = file.mapping(node, "the probe", _PROBE_FIELDS, ())
    return replace(ProbeSpec(), **values)  # type: ignore[arg-type]  # each field's parser makes its type


def _probe_kind(file: _File, node: yaml.Node, key: str) -> ProbeKind:
    text = _text(file, node, key)
    try:
        return ProbeKind[text.upper()]
    except KeyError:
        raise _BadValue(f"probe kind {text!r} is none of tcp, http, grpc") from None


def _seconds(_file: _File, node: yaml.Node, key: str) -> float:
    seconds = _number(node, key)
    low, high = bns_limits.PROBE_INTERVAL_MIN_S, bns_limits.PROBE_INTERVAL_MAX_S
    if not low <= seconds <= high:
        raise _BadValue(f"probe {key} {seconds:g} is not from {low:g} to {high:g}")
    return seconds


def _count(_file: _File, node: yaml.Node, key: str) -> int:
    count = _integer(node, key)
    if not 1 <= count <= bns_limits.PROBE_COUNT_MAX:
        raise _BadValue(f"probe {key} {count} is not from 1 to {bns_limits.PROBE_COUNT_MAX}")
    return count


def _text(_file: _File, node: yaml.Node, key: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null":
        raise _BadValue(f"{key} is {_kind(node)}: give a text")
    return str(node.value)


_TASK_FIELDS: Mapping[str, Parse] = {
    "name": _name,
    "address": _address,
    "port": _port,
    "named_ports": _named_ports,
    "metadata": _metadata,
    "cpu_cores": _cpu_cores,
    "pid": _pid,
    "pid_file": _text,
    "probe": _probe,
}
_PROBE_FIELDS: Mapping[str, Parse] = {
    "kind": _probe_kind,
    "path": _text,
    "port_name": _text,
    "interval_s": _seconds,
    "timeout_s": _seconds,
    "rise": _count,
    "fall": _count,
}


def _pairs(file: _File, node: yaml.Node, key: str) -> list[tuple[str, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _BadValue(f"{key} is {_kind(node)}: write fields, one `name: value` a line")
    names = [_text(file, name, f"a name in {key}") for name, _ in node.value]
    if len(set(names)) < len(names):
        raise _BadValue(f"{key} gives a name twice: remove one")
    return list(zip(names, (value for _, value in node.value), strict=True))


def _integer(node: yaml.Node, key: str) -> int:
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:int":
        try:
            return int(node.value.replace("_", ""), 0)
        except ValueError:
            pass
    raise _BadValue(f"{key} is {_kind(node)}: give a whole number")


def _number(node: yaml.Node, key: str) -> float:
    if isinstance(node, yaml.ScalarNode) and node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
        try:
            number = float(node.value.replace("_", ""))
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
    raise _BadValue(f"{key} is {_kind(node)}: give a number")


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    text = str(node.value)
    return repr(text if len(text) <= 80 else text[:77] + "...") if text else "empty"


def _nearest(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
