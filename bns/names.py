"""The path grammar /bns/DATACENTER/USER/JOB/TASK. PURE.

Each part is a DNS label (RFC 1035 section 2.3.1 as relaxed by RFC 1123: letters, digits, hyphens, 1 to 63 characters,
no hyphen at either end), lower case, so that every task also has a name in DNS.
"""

import re
from dataclasses import dataclass

from typing_extensions import override

ROOT = "/bns/"
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class InvalidNameError(ValueError):
    """A name does not follow the grammar; the message names the part and what is allowed."""


def check_label(label: str, what: str) -> str:
    """`label` itself if it is a lower-case DNS label. Raises InvalidNameError."""
    if _LABEL.fullmatch(label) is None:
        shown = label if len(label) <= 80 else label[:77] + "..."
        raise InvalidNameError(
            f"{what} {shown!r} is not a DNS label: use 1 to 63 of a-z, 0-9 and '-', with no '-' at either end"
        )
    return label


@dataclass(frozen=True, slots=True, order=True)
class JobName:
    """A job: all tasks under it serve the same."""

    datacenter: str
    user: str
    job: str

    @override
    def __str__(self) -> str:
        return f"{ROOT}{self.datacenter}/{self.user}/{self.job}"


@dataclass(frozen=True, slots=True, order=True)
class TaskName:
    """One running server."""

    datacenter: str
    user: str
    job: str
    task: str

    @override
    def __str__(self) -> str:
        return f"{ROOT}{self.datacenter}/{self.user}/{self.job}/{self.task}"

    @property
    def job_name(self) -> JobName:
        return JobName(self.datacenter, self.user, self.job)


_PARTS = ("datacenter", "user", "job", "task")
_TASK_PATH = re.compile(rf"/bns(/{_LABEL.pattern}){{4}}")


def _split(path: str, count: int, form: str) -> list[str]:
    parts = path[len(ROOT) :].split("/") if path.startswith(ROOT) else []
    if len(parts) != count:
        shown = path if len(path) <= 200 else path[:197] + "..."
        raise InvalidNameError(f"{shown!r} is not of the form {form}")
    for what, part in zip(_PARTS, parts, strict=False):
        check_label(part, f"the {what} in {path[:200]!r},")
    return parts


def parse_task(path: str) -> TaskName:
    """/bns/DATACENTER/USER/JOB/TASK. Raises InvalidNameError."""
    return TaskName(*_split(path, 4, "/bns/DATACENTER/USER/JOB/TASK"))


def check_task(path: str) -> str:
    """`path` itself if it is /bns/DATACENTER/USER/JOB/TASK; quicker than taking it apart. Raises InvalidNameError."""
    if _TASK_PATH.fullmatch(path) is None:
        parse_task(path)
        raise InvalidNameError(f"{path[:200]!r} is not of the form /bns/DATACENTER/USER/JOB/TASK")
    return path


def parse_job(path: str) -> JobName:
    """/bns/DATACENTER/USER/JOB. Raises InvalidNameError."""
    return JobName(*_split(path, 3, "/bns/DATACENTER/USER/JOB"))


def check_prefix(prefix: str) -> str:
    """A prefix of task names that ends at a part's border: `/bns/`, `/bns/DC/`, ... Raises InvalidNameError.

    The result ends with `/` unless it names a task, so that `/bns/a` never matches `/bns/ab/...`.
    """
    parts = prefix.strip("/").split("/")
    if parts[0] != "bns" or not prefix.startswith("/") or len(parts) > 5:
        raise InvalidNameError(f"{prefix[:200]!r} is not a prefix of /bns/DATACENTER/USER/JOB/TASK")
    for what, part in zip(_PARTS, parts[1:], strict=False):
        check_label(part, f"the {what} in {prefix[:200]!r},")
    path = "/" + "/".join(parts)
    return path if len(parts) == 5 else path + "/"
