"""An unbound on loopback that asks our frontend, with client subnet if the build has it."""

import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bns.etcd.embedded import free_port
from bns.spawn import dies_with_us

START_S = 20.0
PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


def knows_client_subnet() -> bool:
    program = shutil.which("unbound", path=PATH)
    if program is None:
        return False
    said = subprocess.run([program, "-V"], capture_output=True, text=True, check=False)
    return "subnetcache" in said.stdout


@contextmanager
def unbound(directory: Path, zones: Iterable[str], server_port: int) -> Iterator[int]:
    """A resolver on a port of 127.0.0.1 that asks 127.0.0.1:`server_port` for `zones`, in random case."""
    program = shutil.which("unbound", path=PATH)
    assert program is not None
    port = free_port()
    subnet = knows_client_subnet()
    server = [
        "interface: 127.0.0.1",
        f"port: {port}",
        "do-daemonize: no",
        'username: ""',
        'chroot: ""',
        f'directory: "{directory}"',
        'pidfile: ""',
        "use-syslog: no",
        "num-threads: 1",
        "do-ip6: no",
        "do-not-query-localhost: no",
        "use-caps-for-id: yes",
        "qname-minimisation: yes",
        f'module-config: "{"subnetcache " if subnet else ""}iterator"',
        *(["send-client-subnet: 127.0.0.1", "client-subnet-always-forward: yes"] if subnet else []),
        # Names for documentation are refused by default.
        *(f'local-zone: "{zone}." nodefault' for zone in ("test", "example", "2.0.192.in-addr.arpa")),
    ]
    stubs = "".join(f'stub-zone:\n  name: "{zone}."\n  stub-addr: 127.0.0.1@{server_port}\n' for zone in zones)
    config = directory / "unbound.conf"
    lines = "".join(f"  {line}\n" for line in server)
    config.write_text(f"server:\n{lines}remote-control:\n  control-enable: no\n{stubs}")
    log = (directory / "unbound.log").open("w+")
    process = subprocess.Popen(dies_with_us([program, "-d", "-c", str(config)]), stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + START_S
        while "start of service" not in (said := (directory / "unbound.log").read_text()):
            assert process.poll() is None, said
            assert time.monotonic() < deadline_s, said
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(START_S)
        log.close()
