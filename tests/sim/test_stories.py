"""Every story in tests/golden/stories comes out as it says, and none of its expectations is missed.

When the balancer changes on purpose: `gslb sim --rewrite tests/golden/stories/NAME.txt`, and read the difference.
"""

from pathlib import Path

import pytest

from gslb.sim import story
from gslb.sim.commands import Stage

STORIES = sorted((Path(__file__).parents[1] / "golden" / "stories").glob("*.txt"))


def test_there_are_stories():
    assert len(STORIES) >= 2


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path):
    text = path.read_text(encoding="utf-8")
    stage = Stage()
    played = story.render(story.play(story.parse(text, path.name), stage.execute))
    assert played == text
    assert not stage.missed
    assert "expect " in text, "a story without an expectation shows nothing"
