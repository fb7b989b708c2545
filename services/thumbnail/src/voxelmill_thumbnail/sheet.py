"""A contact sheet: evenly chosen frames of one instance beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from voxelmill_shared.imaging.windowing import usual_window
from voxelmill_thumbnail.picture import fit, picture_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxelmill_shared.imaging.frames import Frame

MOST_FRAMES = 25
_CELL = 160
"""The longer side of a cell in pixels: five beside each other are 800."""
_GAP = 2
_LABEL = 11


def frames_to_show(frames: int) -> list[int]:
    """Return which frames of so many (from 0) a sheet shows: the first, the last and evenly between, at most 25."""
    if frames <= MOST_FRAMES:
        return list(range(frames))
    return [round(place * (frames - 1) / (MOST_FRAMES - 1)) for place in range(MOST_FRAMES)]


def thinned(frame: Frame) -> Frame:
    """Return a frame with only so many pixels as a cell needs twice, so that a whole sheet of them is small."""
    step = max(1, max(frame.stored.shape[:2]) // (2 * _CELL))
    return type(frame)(frame.stored[::step, ::step].copy(), frame.display)


def draw_sheet(frames: Sequence[Frame], numbers: Sequence[int]) -> Image.Image:
    """Draw frames in rows from left to right, each with its number.

    Parameters
    ----------
    frames
        At least one. Those that bring no window and have the same modality transform share one, so that they can be
        compared.
    numbers
        The number that each is labelled with.
    """
    alike: dict[object, list[Frame]] = {}
    for frame in frames:
        if frame.display.voi is None and frame.stored.ndim == 2 and frame.display.photometric.startswith("MONO"):
            alike.setdefault(frame.display.modality, []).append(frame)
    windows = {transform: usual_window(group) for transform, group in alike.items()}
    pictures = [fit(picture_of(frame, windows.get(frame.display.modality)), _CELL) for frame in frames]
    columns = next(n for n in range(1, len(pictures) + 1) if n * n >= len(pictures))
    rows = -(-len(pictures) // columns)
    width, height = max(one.width for one in pictures), max(one.height for one in pictures)
    colour = any(one.mode != "L" for one in pictures)
    size = columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP
    sheet = Image.new("RGB", size, (96, 96, 96)) if colour else Image.new("L", size, 96)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_LABEL)
    white, black = ((255, 255, 255), (0, 0, 0)) if colour else (255, 0)
    for place, (picture, number) in enumerate(zip(pictures, numbers, strict=True)):
        left, top = place % columns * (width + _GAP), place // columns * (height + _GAP)
        sheet.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
        if min(width, height) >= 4 * _LABEL:
            draw.text((left + 3, top + 3), str(number), white, font, "lt", stroke_width=1, stroke_fill=black)
    return sheet
