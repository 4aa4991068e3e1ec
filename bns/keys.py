"""Where BNS keeps things in etcd. PURE.

A task's key is its name; an agent's liveness hangs on its lease at /bns-agent/DATACENTER/AGENT. One watch of
`EVERYTHING` covers both, so that a view shows tasks and liveness at one revision.
"""

from bns.names import ROOT
from bns.view import AGENT_ROOT

EVERYTHING = b"/bns"
TASKS = ROOT.encode()
AGENTS = AGENT_ROOT.encode()


def task_key(name: str) -> bytes:
    """The key of /bns/DATACENTER/USER/JOB/TASK."""
    return name.encode()


def agent_key(datacenter: str, agent: str) -> bytes:
    """The key of an agent's liveness."""
    return f"{AGENT_ROOT}{datacenter}/{agent}".encode()


def is_ours(key: bytes) -> bool:
    """Whether a key under `EVERYTHING` belongs to BNS."""
    return key.startswith((TASKS, AGENTS))
