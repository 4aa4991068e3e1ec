"""Runs the ```console blocks of a document as a reader would: one shell, top to bottom, comparing what is shown.

A line that begins with `$ ` is a command; a here-document belongs to it. The lines after it are what it prints, each
somewhere in its output; ` ... ` stands for anything, and runs of blanks are one blank. A command that shows a line
`Error:`, or an error that `gslb check` found, has to fail, every other to succeed. Ports of 127.0.0.1 are replaced by
free ones.
"""

import logging
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from bns.etcd.embedded import free_port

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
# Asked again until they show it: what they look at follows within a second or two.
ASKING = re.compile(r"(gslb (get|explain|top|check|describe|replay)|bns (ls|resolve)|curl)\b")
PATIENCE_S = 60.0
COMMAND_TIMEOUT_S = 60.0
_HEREDOC = re.compile(r"<<'?(\w+)'?")


@dataclass(frozen=True, slots=True)
class Step:
    """A command and the lines that the document shows below it."""

    line: int
    command: str
    shown: tuple[str, ...]

    @property
    def fails(self) -> bool:
        return any(re.match(r"Error:|error\s", line) for line in self.shown)

    def missing(self, output: str) -> list[str]:
        """What is shown and was not printed."""
        lines = [" ".join(line.split()) for line in output.splitlines()]
        return [line for line in self.shown if not any(_pattern(line).search(printed) for printed in lines)]


def _pattern(shown: str) -> re.Pattern[str]:
    parts = [re.escape(" ".join(part.split())) for part in re.split(r"\s*\.\.\.\s*", shown)]
    return re.compile(".*".join(parts))


def steps_of(text: str) -> list[Step]:
    """Every command of a document's console blocks, in order."""
    steps = []
    for block in re.finditer(r"^```console\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        first = text.count("\n", 0, block.start(1)) + 1
        lines = block[1].splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        assert starts[:1] == [0], f"line {first}: a console block begins with a command"
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            body = lines[start:end]
            size = 1
            if heredoc := _HEREDOC.search(body[0]):
                size = body.index(heredoc[1]) + 1
            command = "\n".join([body[0][2:], *body[1:size]])
            steps.append(Step(first + start, command, tuple(line for line in body[size:] if line.strip())))
    return steps


def with_free_ports(text: str) -> str:
    """Every port that stands behind 127.0.0.1 somewhere replaced, wherever it stands."""
    for number in dict.fromkeys(re.findall(r"127\.0\.0\.1[: ](\d+)", text)):
        text = re.sub(rf"(?<![\d.]){number}\b", f"@{number}@", text)
    chosen: dict[str, str] = {}
    return re.sub(r"@(\d+)@", lambda found: chosen.setdefault(found[1], str(free_port())), text)


# Each command is read from file descriptor 9, so that what it starts cannot eat the next.
_LOOP = r"""
trap 'kill $(jobs -p) 2>/dev/null' EXIT
while IFS= read -r -d '' -u 9 command; do eval "$command" 9<&-; printf '\n\001%s\n' "$?"; done
"""


class Shell:
    """A bash that runs one command after the other; everything it started ends with it."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        read_end, self._commands = os.pipe()
        self._process = subprocess.Popen(
            ["bash", "--norc", "-c", f"exec 9<&{read_end} {read_end}<&-\n{_LOOP}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=environment,
            pass_fds=[read_end],
            start_new_session=True,
        )
        os.close(read_end)

    def run(self, command: str) -> tuple[int, str]:
        """Exit status and output of a command."""
        os.write(self._commands, command.encode() + b"\0")
        assert self._process.stdout is not None
        output, deadline_s = b"", time.monotonic() + COMMAND_TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not (found := re.search(rb"\n\x01(\d+)\n$", output)):
                assert selector.select(deadline_s - time.monotonic()), (
                    f"{command!r} does not end; it printed {output!r}"
                )
                chunk = os.read(self._process.stdout.fileno(), 65_536)
                assert chunk, f"the shell ended at {command!r}; it printed {output!r}"
                output += chunk
        return int(found[1]), output[: found.start()].decode(errors="replace")

    def close(self) -> list[str]:
        """Ends everything; the command lines of what still ran when the document was over."""
        left = [" ".join(process.cmdline()) for process in psutil.Process(self._process.pid).children(recursive=True)]
        os.close(self._commands)
        for number, patience_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                break
            self._wait_gone(patience_s)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return left

    def _wait_gone(self, patience_s: float) -> None:
        deadline_s = time.monotonic() + patience_s
        while time.monotonic() < deadline_s:
            self._process.poll()
            try:
                os.killpg(self._process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)


def follow(document: Path, directory: Path, environment: dict[str, str]) -> int:
    """Does what a document says; how many commands it has. Fails at the first that does not do what is shown."""
    steps = steps_of(with_free_ports(document.read_text()))
    tools = str(Path(sys.executable).parent)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GSLB_", "BNS_", "ETCD_"))}
    path = f"{tools}:{os.environ['PATH']}"
    shell = Shell(directory, {**kept, "PATH": path, "COLUMNS": "200", "HOME": str(directory), **environment})
    left = ["(the document was not followed to its end)"]
    try:
        for step in steps:
            _do(document, step, shell)
    finally:
        left = shell.close()
    assert left == [], f"{document.name} leaves running: {left}"
    return len(steps)


def _do(document: Path, step: Step, shell: Shell) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        code, output = shell.run(step.command)
        wrong = [f"does not show {line!r}" for line in step.missing(output)]
        if (code != 0) != step.fails:
            wrong.append(f"exit status {code}")
        if not wrong:
            log.info("%6.2f s %s", time.monotonic() - deadline_s + PATIENCE_S, step.command.partition("\n")[0])
            return
        if not ASKING.match(step.command) or time.monotonic() > deadline_s:
            raise AssertionError(
                f"{document.name}:{step.line}: `{step.command}`: {'; '.join(wrong)}; it printed:\n{output}"
            )
        time.sleep(0.3)
