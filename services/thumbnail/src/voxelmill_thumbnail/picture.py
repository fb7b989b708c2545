"""Pictures: one decoded frame as an image of square pixels, made small, and written as WebP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from voxelmill_thumbnail.windowing import colours, grey_levels

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.imaging.frames import Frame, Window

THUMBNAIL_SIZES = (256, 64)
"""The longer side of the thumbnails in pixels, from large to small: each is made from the one before."""
_THUMBNAIL_QUALITY = 80
_PREVIEW_QUALITY = 90
_METHOD = 1
"""WebP's effort. Method 1 takes a third of the default's time for the same quality at these sizes; encoding is nine
tenths of the cost of a thumbnail."""
_LONGEST_SIDE = 16_383
"""The largest picture that WebP can hold."""


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
    """Stretch a picture whose pixels are `aspect` times as high as wide, never making it smaller."""
    if not 1e-2 < aspect < 1e2:
        return image  # no detector has such pixels; the header is wrong, and the picture is better than none
    if abs(aspect - 1) < 5e-3:
        return image
    width, height = image.size
    size = (width, round(height * aspect)) if aspect > 1 else (round(width / aspect), height)
    return image.resize(size, Image.Resampling.BILINEAR)


def fit(image: Image.Image, longest: int) -> Image.Image:
    """Make a picture small enough that its longer side is `longest`. A smaller one is left as it is."""
    width, height = image.size
    scale = longest / max(width, height)
    if scale >= 1:
        return image
    if (1 / scale).is_integer() and width % (factor := round(1 / scale)) == 0 and height % factor == 0:
        return image.reduce(factor)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def write_thumbnails(image: Image.Image, folder: Path, stem: str) -> list[Path]:
    """Write `{stem}-256.webp` and `{stem}-64.webp`."""
    paths = []
    for size in THUMBNAIL_SIZES:
        image = fit(image, size)
        path = folder / f"{stem}-{size}.webp"
        image.save(path, "WEBP", quality=_THUMBNAIL_QUALITY, method=_METHOD)
        paths.append(path)
    return paths


def write_picture(image: Image.Image, path: Path) -> Path:
    """Write a preview or a plane."""
    fit(image, _LONGEST_SIDE).save(path, "WEBP", quality=_PREVIEW_QUALITY, method=_METHOD)
    return path
