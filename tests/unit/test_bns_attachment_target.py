"""What may be given as the address of a node agent."""

import pytest

from bns.attachment import agent_target
from bns.errors import AddressError


@pytest.mark.parametrize(
    ("given", "dialled"),
    [
        ("/run/gslb/agent.sock", "unix:/run/gslb/agent.sock"),
        ("/run/a:b.sock", "unix:/run/a:b.sock"),
        ("agent.sock", "unix:agent.sock"),
        ("./run/agent.sock", "unix:./run/agent.sock"),
        ("unix:agent.sock", "unix:agent.sock"),
        ("127.0.0.1:80", "127.0.0.1:80"),
    ],
)
def test_paths_and_addresses(given: str, dialled: str) -> None:
    assert agent_target(given) == dialled


@pytest.mark.parametrize("given", ["", "unix:", "host:port", "/" + "x" * 200, "127.0.0.1:0"])
def test_what_cannot_be_dialled(given: str) -> None:
    with pytest.raises(AddressError):
        agent_target(given)
