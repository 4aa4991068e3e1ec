"""Where the control plane keeps what in etcd."""

from gslb.model.meta import Meta

ROOT = b"/gslb/"
CONFIG = b"/gslb/config/"
# Changed with every change of desired state: what an admin call has checked the whole of, it compares this to write.
CONFIG_GUARD = b"/gslb/config-guard"
PLANS = b"/gslb/plan/0/"
LEADERS = b"/gslb/leader/0/"
INCARNATION = b"/gslb/incarnation"


def config_key(kind: str, meta: Meta) -> bytes:
    """/gslb/config/KIND/OWNER/NAME"""
    return CONFIG + f"{kind}/{meta.owner}/{meta.name}".encode()


def plan_key(service: str) -> bytes:
    """/gslb/plan/0/SERVICE"""
    return PLANS + service.encode()


def shown(key: bytes) -> str:
    """For messages: a key is hostile bytes until it is parsed."""
    text = key[:200].decode("utf-8", "replace")
    return text if text.isprintable() else repr(text)
