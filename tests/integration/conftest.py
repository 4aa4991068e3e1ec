"""Fixtures that several modules here share: defined once, so that a session starts them once."""

from tests.support.cli import lasting_planet, planet

__all__ = ["lasting_planet", "planet"]
