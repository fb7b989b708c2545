"""Letters at the edges of a picture that say where the patient's right, front and head are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))
_SECOND = 0.2588
"""The sine of 15 degrees: a direction that leans less than this has one letter."""
_SMALLEST, _LARGEST = 11, 22
"""The letters' height in pixels, a twentieth of the picture's shorter side in between."""


@dataclass(frozen=True, slots=True)
class Edges:
    """What lies beyond each edge of a picture, in the letters of PS3.3 C.7.6.1.1.1."""

    left: str
    right: str
    top: str
    bottom: str


def letters_of(direction: NDArray[Any]) -> str:
    """Return where a direction of the patient's LPS system points to, nearest first.

    One letter of R L A P H F, and a second where the direction leans that way by more than 15 degrees (PS3.3
    C.7.6.1.1.1 has a third too, which nobody can read from a picture).
    """
    cosines = np.asarray(direction, float) / np.linalg.norm(direction)
    first, second, _ = np.argsort(-np.abs(cosines), kind="stable")
    axes = [first, second] if abs(cosines[second]) > _SECOND else [first]
    return "".join(_LETTERS[axis][int(cosines[axis] > 0)] for axis in axes)


def edges_of(across: NDArray[Any], down: NDArray[Any]) -> Edges:
    """Return the letters of a picture whose columns run along `across` and whose rows follow each other along `down`.

    Both are directions in the patient's LPS system.
    """
    return Edges(letters_of(-across), letters_of(across), letters_of(-down), letters_of(down))


def mark(image: Image.Image, edges: Edges) -> Image.Image:
    """Return a picture with the letters at its edges: white with a black rim, so that any ground will do.

    Letters that a small picture has no room for are left out.
    """
    width, height = image.size
    size = min(_LARGEST, max(_SMALLEST, min(image.size) // 20))
    rim = max(1, size // 9)
    marked = image.copy()
    draw = ImageDraw.Draw(marked)
    margin = rim + 2
    places = []
    if height >= 2 * size and width >= 6 * size:
        places += [(edges.left, (margin, height // 2), "lm"), (edges.right, (width - margin, height // 2), "rm")]
    if width >= 2 * size and height >= 6 * size:
        places += [(edges.top, (width // 2, margin), "mt"), (edges.bottom, (width // 2, height - margin), "mb")]
    white, black = (255, 0) if image.mode == "L" else ((255, 255, 255), (0, 0, 0))
    for text, place, anchor in places:
        draw.text(place, text, white, _font(size), anchor, stroke_width=rim, stroke_fill=black)
    return marked


@lru_cache(maxsize=32)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
