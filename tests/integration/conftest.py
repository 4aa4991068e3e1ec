"""Fixtures that several modules here share: defined once, so that a session starts them once."""

from tests.support.cli import lasting_planet, planet
from tests.support.planet import demo_planet

__all__ = ["demo_planet", "lasting_planet", "planet"]
