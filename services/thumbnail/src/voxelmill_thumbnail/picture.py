"""Pictures: one decoded frame as an image of square pixels, made small, and written as WebP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from voxelmill_shared.imaging.windowing import colours, grey_levels
from voxelmill_thumbnail.shrinking import halve

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.imaging.frames import Frame, Window

THUMBNAIL_SIZES = (256, 64)
"""The longer side of the thumbnails in pixels, from large to small: each is made from the one before."""
_THUMBNAIL_QUALITIES = (82, 88)
_PREVIEW_QUALITY = 90
_THUMBNAIL_METHOD, _PREVIEW_METHOD = 0, 1
"""WebP's effort. Method 0 takes a third of the default's time, and at these qualities is nearer to the original than
the default at 80, for half as many bytes again. Encoding is two thirds of the cost of a thumbnail."""
_LONGEST_SIDE = 16_383
"""The longest that WebP can hold."""
_MOST_PIXELS = 1 << 26
"""The largest picture that is written, 8,192 squared: four mammograms. Nobody looks at more at once, and it takes
seconds to encode."""
_TOO_MUCH = "encoding error 6"
"""What Pillow says where libwebp finds no room for the modes of all blocks (VP8_ENC_ERROR_PARTITION0_OVERFLOW): they
have 512 KiB, which is too little for 16 million pixels of noise."""


def picture_of(frame: Frame, usual: Window | None = None) -> Image.Image:
    """Draw a frame with square pixels at full resolution.

    Parameters
    ----------
    frame
        Of any kind, grey or colour.
    usual
        The window to use if a grey frame brings none; percentiles of the frame if left out.
    """
    if frame.stored.ndim == 2 and frame.display.palette is None:
        image = Image.fromarray(np.ascontiguousarray(grey_levels(frame, usual)))
    else:
        samples = np.ascontiguousarray(colours(frame, usual))
        if frame.display.photometric.startswith("YBR"):
            bands = [Image.fromarray(np.ascontiguousarray(samples[..., band])) for band in range(3)]
            image = Image.merge("YCbCr", bands).convert("RGB")  # JFIF's equations are YBR_FULL's (C.7.6.3.1.2)
        else:
            image = Image.fromarray(samples)
    return square_pixels(image, frame.display.aspect)


def square_pixels(image: Image.Image, aspect: float) -> Image.Image:
    """Stretch a picture whose pixels are `aspect` times as high as wide, so that they are square.

    It becomes larger, never smaller, but for one that would then be above the most pixels that are written.
    """
    if not 1e-2 < aspect < 1e2:
        return image  # no detector has such pixels; the header is wrong, and the picture is better than none
    if abs(aspect - 1) < 5e-3:
        return image
    width, height = image.size
    size = (width, height * aspect) if aspect > 1 else (width / aspect, height)
    scale = min(1.0, (max(_MOST_PIXELS, width * height) / (size[0] * size[1])) ** 0.5)
    return image.resize((max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), Image.Resampling.BILINEAR)


def fit(image: Image.Image, longest: int) -> Image.Image:
    """Make a picture small enough that its longer side is `longest`. A smaller one is left as it is.

    Usual sizes are 2, 4 or 8 times the size wanted, and halving grey pictures is quick.
    """
    width, height = image.size
    scale = longest / max(width, height)
    if scale >= 1:
        return image
    factor = max(width, height) // longest
    if image.mode == "L" and longest * factor == max(width, height) and factor & (factor - 1) == 0:
        if factor > 4 and width % factor == 0 and height % factor == 0:
            image = image.reduce(factor // 4)  # what the last two halvings leave is not seen to be a box's
            factor = 4
        while factor > 1 and image.width % 2 == 0 and image.height % 2 == 0:
            image, factor = halve(image), factor // 2
        if factor == 1:
            return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def write_thumbnails(image: Image.Image, folder: Path, stem: str) -> list[Path]:
    """Write `{stem}-256.webp` and `{stem}-64.webp`."""
    paths = []
    for size, quality in zip(THUMBNAIL_SIZES, _THUMBNAIL_QUALITIES, strict=True):
        image = fit(image, size)
        path = folder / f"{stem}-{size}.webp"
        image.save(path, "WEBP", quality=quality, method=_THUMBNAIL_METHOD)
        paths.append(path)
    return paths


def longest_written(width: int, height: int) -> int:
    """Return the longer side that a picture of these proportions may have, in pixels."""
    return min(_LONGEST_SIDE, int(max(width, height) * (_MOST_PIXELS / (width * height)) ** 0.5))


def write_picture(image: Image.Image, path: Path) -> Path:
    """Write a preview or a plane, at full resolution if it has at most 8,192 squared pixels and WebP can hold it."""
    image = fit(image, longest_written(*image.size))
    while True:
        try:
            image.save(path, "WEBP", quality=_PREVIEW_QUALITY, method=_PREVIEW_METHOD)
        except ValueError as error:
            if str(error) != _TOO_MUCH or max(image.size) < _LONGEST_SIDE // 16:
                raise
            image = fit(image, max(image.size) * 3 // 4)
        else:
            return path
