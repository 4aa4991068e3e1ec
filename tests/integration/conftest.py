"""Fixtures that several modules here share: defined once, so that a session starts them once."""

from collections.abc import AsyncIterator

import pytest

from tests.support.cli import lasting_planet, planet
from tests.support.dns import ControlPlane, reader_view, view_of
from tests.support.planet import demo_planet

__all__ = ["demo_planet", "lasting_planet", "planet"]


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    """A control plane of one replica that serves the usual view to DNS frontends."""
    made = ControlPlane()
    await made.start()
    made.serve(reader_view(view_of()))
    yield made
    await made.stop()
