"""Where a picture is painted: lines and words, as SVG (which needs no package) or as PNG (by Pillow, the extra `plot`)."""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from math import hypot
from typing import Final

from typing_extensions import override

from gslb.sim.errors import StoryError

Point = tuple[float, float]

INK: Final = "#222222"
PAPER: Final = "#ffffff"
# PNGs are painted this much larger and shrunk, which smooths every edge, to twice the size for sharp text.
OVERSAMPLED: Final = 4
SHRUNK: Final = 2
PNG_MISSING: Final = "PNG pictures need Pillow: pip install 'gslb[plot]', or name the picture .svg, which needs nothing"


class Canvas(ABC):
    """Coordinates are pixels from the upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height

    @abstractmethod
    def line(self, points: Sequence[Point], colour: str, width: float, dash: Sequence[float] = ()) -> None:
        """A line through the points."""

    @abstractmethod
    def text(
        self, at: Point, text: str, *, size: int, colour: str = INK, anchor: str = "start", bold: bool = False
    ) -> None:
        """Words on a baseline; `anchor`: what of them is at `at`, start, middle or end."""

    @abstractmethod
    def save(self) -> bytes:
        """The file."""


class SvgCanvas(Canvas):
    """An SVG document."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height)
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
            f'<rect width="100%" height="100%" fill="{PAPER}"/>',
        ]

    @override
    def line(self, points: Sequence[Point], colour: str, width: float, dash: Sequence[float] = ()) -> None:
        dashes = f' stroke-dasharray="{" ".join(f"{part:g}" for part in dash)}"' if dash else ""
        stroke = f'stroke="{colour}" stroke-width="{width:g}"{dashes}'
        if len(points) == 2:
            (x1, y1), (x2, y2) = points
            self._parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {stroke}/>')
            return
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline points="{path}" fill="none" {stroke}/>')

    @override
    def text(
        self, at: Point, text: str, *, size: int, colour: str = INK, anchor: str = "start", bold: bool = False
    ) -> None:
        weight = ' font-weight="bold"' if bold else ""
        style = f'font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}'
        self._parts.append(f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" {style}>{escape(text)}</text>')

    @override
    def save(self) -> bytes:
        return ("\n".join([*self._parts, "</svg>"]) + "\n").encode()


class PngCanvas(Canvas):
    """A PNG at twice the size, by Pillow. Raises StoryError when Pillow is missing."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height)
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise StoryError(PNG_MISSING) from error
        self._fonts = ImageFont
        self._image = Image.new("RGB", (width * OVERSAMPLED, height * OVERSAMPLED), PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._smaller = Image.Resampling.LANCZOS

    @override
    def line(self, points: Sequence[Point], colour: str, width: float, dash: Sequence[float] = ()) -> None:
        thick = max(1, round(width * OVERSAMPLED))
        for part in _dashed(points, dash) if dash else [points]:
            scaled = [(x * OVERSAMPLED, y * OVERSAMPLED) for x, y in part]
            self._draw.line(scaled, fill=colour, width=thick, joint="curve")

    @override
    def text(
        self, at: Point, text: str, *, size: int, colour: str = INK, anchor: str = "start", bold: bool = False
    ) -> None:
        font = self._fonts.load_default(size * OVERSAMPLED)
        where = (at[0] * OVERSAMPLED, at[1] * OVERSAMPLED)
        stroke = max(1, size * OVERSAMPLED // 28) if bold else 0
        base = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
        self._draw.text(where, text, fill=colour, font=font, anchor=base, stroke_width=stroke, stroke_fill=colour)

    @override
    def save(self) -> bytes:
        size = (self.width * SHRUNK, self.height * SHRUNK)
        file = io.BytesIO()
        self._image.resize(size, self._smaller).save(file, "PNG", optimize=True)
        return file.getvalue()


def _dashed(points: Sequence[Point], dash: Sequence[float]) -> Iterator[list[Point]]:
    """The parts of the line that are drawn: `dash` has the lengths of ink and gap in turn."""
    pattern, left, inked = 0, dash[0], True
    part: list[Point] = [points[0]]
    for (x1, y1), (x2, y2) in pairwise(points):
        length = hypot(x2 - x1, y2 - y1)
        done = 0.0
        while length - done > left:
            done += left
            here = (x1 + (x2 - x1) * done / length, y1 + (y2 - y1) * done / length)
            if inked:
                yield [*part, here]
            pattern = (pattern + 1) % len(dash)
            left, inked, part = dash[pattern], not inked, [here]
        left -= length - done
        if inked:
            part.append((x2, y2))
    if inked and len(part) > 1:
        yield part


# By the ending of the file's name.
CANVASES: Final[dict[str, type[Canvas]]] = {".svg": SvgCanvas, ".png": PngCanvas}
