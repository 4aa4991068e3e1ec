"""What the frontend answers for the zones of the corpus: kept as text, and compared with Knot in tests/conformance."""

from tests.support.corpus import GOLDEN, golden_text


def test_the_answers_are_what_they_were():
    now, kept = golden_text().splitlines(), GOLDEN.read_text().splitlines()
    changed = [
        f"line {number}: {old!r} is now {new!r}"
        for number, (old, new) in enumerate(zip(kept, now, strict=False), 1)
        if old != new
    ]
    assert not changed, "\n".join(changed[:20])
    assert len(now) == len(kept)
