"""The state file: which tasks the agent looks after, for the one that comes after it.

BNS gives a restarted agent its tasks back; this file does so while no control-plane replica answers, and says which of
them came from the tasks file, so that one that was taken out of it meanwhile is deregistered. It is a help, not a
truth: a missing, old or broken file changes nothing else.
"""

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from agents import limits
from agents.keeper import Kept, Origin
from bns.codec import decode_task, encode_task
from bns.errors import BadRecordError
from bns.model import Task
from bns.v1 import bns_pb2

log = logging.getLogger(__name__)

_VERSION = 1
_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Remembered:
    """A task that the agent before this one looked after."""

    task: Task
    origin: Origin


def dump(boot_id: str, kept: Iterable[Kept]) -> bytes:
    """The file's content."""
    tasks = [{"origin": item.origin.value, "task": json_format.MessageToDict(encode_task(item.task))} for item in kept]
    return json.dumps({"version": _VERSION, "boot_id": boot_id, "tasks": tasks}, indent=1).encode()


def save(path: Path, data: bytes) -> None:
    """Replaces the file as a whole, so that a kill at any moment leaves the old or the new one. Blocking."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(data)
        new.replace(path)
    except OSError as error:
        log.warning("cannot write --state %s: %s; going on without", path, error.strerror)


def load(path: Path, boot_id: str) -> list[Remembered]:
    """What the file holds of this boot: after a reboot no process of it is left."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
        return _parse(path.read_bytes(), boot_id)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("--state %s is not usable, going on without: %s", path, error)
        return []


def _parse(data: bytes, boot_id: str) -> list[Remembered]:
    content = json.loads(data)
    if content["version"] != _VERSION or content["boot_id"] != boot_id:
        return []
    found: list[Remembered] = []
    for item in content["tasks"][: limits.TASKS_MAX]:
        try:
            task = decode_task(json_format.ParseDict(item["task"], bns_pb2.TaskRecord(), ignore_unknown_fields=True))
            found.append(Remembered(task, Origin(item["origin"])))
        except (BadRecordError, json_format.ParseError) as error:
            log.warning("not taking up a bad task of the state file: %s", error)
    return found
